// @ts-check
// The picture: a row for each model, bands for its states, marks for requests, memory below.
// Bands have time coordinates and are drawn once. A move in time only moves the view.
import { Component } from "../vendor/preact.mjs";
import { useEffect, useLayoutEffect, useRef, useState } from "../vendor/hooks.mjs";
import { WORDS, bytes, clock, duration } from "../format.js";
import { html } from "../html.js";
import { bounds, moved, stepped, ticks, zoomed } from "./window.js";

/**
 * @typedef {import("./past.js").Row} Row
 * @typedef {import("./past.js").Span} Span
 * @typedef {import("./past.js").Sample} Sample
 * @typedef {import("./window.js").Window} Window
 */

export const ROW = 26; // pixels
const LANE = 56; // pixels of a device's memory
const AFTER = 60; // seconds for which the last sample of memory is drawn
const NEVER = 1e9; // seconds; the width of a band that has not ended
const TICK = 84; // pixels between two names on the axis
/** Moments are drawn relative to this one: SVG's numbers have seven digits. */
const ZERO = Math.floor(Date.now() / 1000 / 86400) * 86400;

/** @param {number} at */
const x = (at) => Math.round((at - ZERO) * 1000) / 1000;

/** Leave out bands that end within half a pixel of the one before. @param {{begin: number, end: number|null}[]} list @param {number} least */
function visible(list, least) {
  const found = [];
  let drawn = -Infinity;
  for (const one of list) {
    const end = one.end ?? Infinity;
    if (end > drawn + least) {
      found.push(one);
      drawn = end;
    }
  }
  return found;
}

/** The bands of one model. They are drawn again only if their lists, place, zoom step or selection change. */
class Bands extends Component {
  /** @param {any} next */
  shouldComponentUpdate(next) {
    const { row, top, detail, chosen } = this.props;
    return next.row !== row || next.top !== top || next.detail !== detail || next.chosen !== chosen;
  }

  /** @param {{row: Row, top: number, detail: number, chosen: number|null}} props */
  render({ row, top, detail, chosen }) {
    const height = ROW - 8;
    return html`<g transform="translate(0 ${top})">
      ${/** @type {Span[]} */ (visible(row.spans, detail)).map((span) => {
        const wide = Math.max((span.end ?? span.begin + NEVER) - span.begin, detail);
        const thin = span.state === "asleep" || span.state === "failed";
        return html`<rect key=${span.id} class=${`band ${span.state}${span.id === chosen ? " chosen" : ""}`}
          x=${x(span.begin)} width=${wide} y=${thin ? 4 + height / 2 - 2 : 4} height=${thin ? 4 : height}/>`;
      })}
      ${visible(row.busy, detail).map(
        (use) => html`<rect class="busy" x=${x(use.begin)} width=${Math.max((use.end ?? 0) - use.begin, detail)} y=${ROW - 8} height="3"/>`,
      )}
      ${visible(row.waits, detail).map(
        (use) => html`<rect class="waits" x=${x(use.begin)} width=${Math.max((use.end ?? 0) - use.begin, detail)} y="4" height=${height} fill="url(#hatched)"/>`,
      )}
    </g>`;
  }
}

const KINDS = /** @type {("awake"|"asleep"|"others")[]} */ (["awake", "asleep", "others"]);

/** The use of one device's memory, as stacked areas. */
class Lane extends Component {
  /** @param {any} next */
  shouldComponentUpdate(next) {
    return next.samples !== this.props.samples || next.top !== this.props.top;
  }

  /** @param {{samples: Sample[], device: string, top: number}} props */
  render({ samples, device, top }) {
    const known = samples.map((one) => ({ at: one.at, ...one.devices.find((d) => d.name === device) }));
    const list = /** @type {any[]} */ (known.filter((one) => one.total));
    const most = Math.max(1, ...list.map((one) => one.total));
    if (!list.length) return null;
    // A sample is valid until the next one: steps, not slopes.
    const line = (/** @type {number} */ parts) => list.flatMap((one, place) => {
      const sum = KINDS.slice(0, parts).reduce((all, name) => all + one[name], 0);
      const y = LANE - 6 - ((LANE - 10) * sum) / most;
      const next = place + 1 < list.length ? list[place + 1].at : one.at + AFTER;
      return [[x(one.at), y], [x(next), y]];
    });
    const areas = KINDS.map((kind, place) => {
      const points = [...line(place + 1), ...line(place).reverse()].map((pair) => pair.join(" ")).join("L");
      return html`<path class="area ${kind}" d=${`M${points}Z`}/>`;
    });
    return html`<g transform="translate(0 ${top})">${areas}</g>`;
  }
}

/**
 * @param {{rows: Map<string, Row>, names: string[], samples: Sample[], shown: Window, now: () => number,
 *   onShown: (shown: Window) => void, chosen?: number|null, onChoose?: (span: Span|null) => void,
 *   title: string, still?: boolean}} props
 */
export function Picture({ rows, names, samples, shown, now, onShown, chosen = null, onChoose, title, still }) {
  const plot = useRef(/** @type {HTMLElement|null} */ (null));
  const [wide, setWide] = useState(800);
  const [cursor, setCursor] = useState(/** @type {number|null} */ (null));
  const [, redraw] = useState(0);
  const live = shown.end === null && !still;

  useLayoutEffect(() => {
    const element = /** @type {HTMLElement} */ (plot.current);
    const watch = new ResizeObserver(() => setWide(Math.max(100, element.clientWidth)));
    watch.observe(element);
    return () => watch.disconnect();
  }, []);

  // A live picture moves by one pixel at a time.
  useEffect(() => {
    if (!live) return undefined;
    const slow = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const pause = Math.min(5000, Math.max(slow ? 1000 : 100, (1000 * shown.width) / wide));
    const timer = setInterval(() => document.hidden || redraw((count) => count + 1), pause);
    return () => clearInterval(timer);
  }, [live, shown.width, wide]);

  const [from, to] = bounds(shown, now());
  const devices = [...new Set(samples.slice(-50).flatMap((one) => one.devices.map((d) => d.name)))];
  const height = names.length * ROW + devices.length * LANE;
  const detail = 2 ** Math.ceil(Math.log2(shown.width / wide)) / 2; // half a pixel, in steps
  const at = cursor === null ? null : from + cursor * (to - from);

  /** @param {any} event */
  const part = (event) => {
    const box = /** @type {HTMLElement} */ (plot.current).getBoundingClientRect();
    return Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
  };
  const wheel = (/** @type {WheelEvent} */ event) => {
    // If the picture does not have the focus, the wheel scrolls the page as usual.
    if (!event.ctrlKey && document.activeElement !== plot.current) return;
    if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      onShown(moved(shown, ((event.deltaX || event.deltaY) / wide) * shown.width, now()));
    } else {
      onShown(zoomed(shown, event.deltaY > 0 ? 1.25 : 0.8, from + part(event) * (to - from), now()));
    }
    event.preventDefault();
  };
  // Preact's own listener would be passive, so the page would scroll too.
  useEffect(() => {
    const element = /** @type {HTMLElement} */ (plot.current);
    element.addEventListener("wheel", wheel, { passive: false });
    return () => element.removeEventListener("wheel", wheel);
  });

  const keys = (/** @type {KeyboardEvent} */ event) => {
    const steps = /** @type {Record<string, () => void>} */ ({
      "+": () => onShown(stepped(shown, -1)),
      "=": () => onShown(stepped(shown, -1)),
      "-": () => onShown(stepped(shown, 1)),
      ArrowLeft: () => onShown(moved(shown, -shown.width / 8, now())),
      ArrowRight: () => onShown(moved(shown, shown.width / 8, now())),
      End: () => onShown({ ...shown, end: null }),
      Home: () => onShown(moved(shown, -86400, now())),
    });
    if (event.ctrlKey || event.metaKey || event.altKey || !steps[event.key]) return;
    steps[event.key]();
    event.preventDefault();
  };

  const click = (/** @type {MouseEvent} */ event) => {
    const box = /** @type {HTMLElement} */ (plot.current).getBoundingClientRect();
    const name = names[Math.floor((event.clientY - box.top) / ROW)];
    const moment = from + part(event) * (to - from);
    onChoose?.(spanAt(rows.get(name), moment, (4 / wide) * shown.width));
  };

  return html`<figure class="picture" aria-label=${title}>
    <div class="labels" aria-hidden="true" style=${{ paddingTop: "22px" }}>
      ${names.map((name) => html`<div key=${name} class="label" style=${{ height: `${ROW}px` }} title=${name}><bdi>${name}</bdi></div>`)}
      ${devices.map((name) => html`<div key=${name} class="label lane" style=${{ height: `${LANE}px` }}>${titleOf(samples, name)}</div>`)}
    </div>
    <div class="plot">
      <div class="axis" aria-hidden="true">
        ${ticks(from, to, wide / TICK).map(
          (tick) => html`<span key=${tick} style=${{ left: `${((tick - from) / (to - from)) * 100}%` }}>${axis(tick, to - from)}</span>`,
        )}
      </div>
      <div class="drawing" ref=${plot} tabindex="0" role="application" aria-roledescription="timeline"
        aria-label="${title}. Arrow keys move in time, plus and minus zoom, End shows the present. The list below has the same information in words."
        onKeyDown=${keys} onClick=${click} onMouseMove=${(/** @type {any} */ event) => setCursor(part(event))}
        onMouseLeave=${() => setCursor(null)}>
        <svg viewBox="${x(from)} 0 ${to - from} ${height}" width="100%" height=${height} preserveAspectRatio="none" aria-hidden="true">
          <defs><pattern id="hatched" width="6" height="6" patternUnits="userSpaceOnUse"
            patternTransform="scale(${(to - from) / wide} 1) rotate(45)"><rect width="2.5" height="6" class="hatch"/></pattern></defs>
          ${names.map((name, place) => rows.get(name) && html`<${Bands} key=${name} row=${rows.get(name)} top=${place * ROW} detail=${detail} chosen=${chosen}/>`)}
          ${devices.map((name, place) => html`<${Lane} key=${name} samples=${samples} device=${name} top=${names.length * ROW + place * LANE}/>`)}
        </svg>
        ${cursor !== null && html`<div class="cursor" style=${{ left: `${cursor * 100}%` }}></div>`}
      </div>
      <figcaption class="readout">${at === null ? hint(shown, now()) : readout(at, rows, names, samples)}</figcaption>
    </div>
  </figure>`;
}

/** @param {Row|undefined} row @param {number} at @param {number} near @returns {Span|null} */
function spanAt(row, at, near) {
  if (!row) return null;
  const begins = row.spans.filter((one) => Math.abs(one.begin - at) <= near);
  const inside = row.spans.filter((one) => one.begin <= at && (one.end ?? Infinity) >= at);
  return begins[begins.length - 1] ?? inside[inside.length - 1] ?? null;
}

/** @param {number} at @param {number} width */
function axis(at, width) {
  const text = clock(at);
  return width > 600 ? text.slice(0, 5) : text;
}

/** @param {Window} shown @param {number} now */
function hint(shown, now) {
  const [from, to] = bounds(shown, now);
  const end = shown.end === null ? "now" : clock(to);
  return `${clock(from)} to ${end} (${duration(shown.width)}). Click a band to see why it began. After a click, the wheel zooms.`;
}

/** @param {Sample[]} samples @param {string} name */
function titleOf(samples, name) {
  for (let at = samples.length - 1; at >= 0; at -= 1) {
    const found = samples[at].devices.find((one) => one.name === name);
    if (found) return found.title;
  }
  return name;
}

/** @param {number} at @param {Map<string, Row>} rows @param {string[]} names @param {Sample[]} samples */
function readout(at, rows, names, samples) {
  const parts = [];
  for (const name of names) {
    const row = rows.get(name);
    const span = row?.spans.find((one) => one.begin <= at && (one.end ?? Infinity) >= at);
    if (span && span.state !== "stopped") parts.push(`${name} ${WORDS[span.state] ?? span.state}`);
  }
  const sample = [...samples].reverse().find((one) => one.at <= at);
  const held = (sample?.devices ?? []).map((one) => `${one.title}: ${bytes(one.awake)} awake, ${bytes(one.asleep)} sleepers, ${bytes(one.others)} others`);
  return [clock(at), parts.slice(0, 6).join(", ") || "no model was loaded", ...held].join(" · ");
}
