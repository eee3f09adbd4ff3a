// @ts-check
// The timeline: which model used the memory when, and why that changed.
import { useEffect, useState } from "../vendor/hooks.mjs";
import { computed, signal } from "../vendor/signals.mjs";
import { clock, counted, duration } from "../format.js";
import { html } from "../html.js";
import { Model, State, kept } from "../parts.js";
import { exactly, models, now } from "../store.js";
import * as past from "../timeline/past.js";
import { Picture } from "../timeline/picture.js";
import { Replay } from "../timeline/replay.js";
import { Why } from "../timeline/why.js";
import { WIDTHS, bounds } from "../timeline/window.js";
import { cause } from "../words.js";

export const kinds = ["timeline", "memory"];
export const title = "Timeline";

/** @typedef {import("../timeline/past.js").Span} Span */

const width = kept("timeline.width", 900);
const end = signal(/** @type {number|null} */ (null));
const chosen = signal(/** @type {number|null} */ (null));

/** Models with a past in the timeline, and models that are not stopped; by name. */
const names = computed(() => {
  const known = [...models.value.values()].filter((one) => one.state !== "stopped").map((one) => one.id);
  return [...new Set([...past.rows.value.keys(), ...known])].sort((a, b) => a.localeCompare(b));
});

/** @param {number|null} id @returns {Span|undefined} */
function spanOf(id) {
  if (id === null) return undefined;
  for (const row of past.rows.value.values()) {
    const found = row.spans.find((span) => span.id === id);
    if (found) return found;
  }
  return undefined;
}

const WORDS_OF_WIDTHS = /** @type {Record<number, string>} */ ({ 60: "1 min", 300: "5 min", 900: "15 min", 3600: "1 h", 14400: "4 h", 43200: "12 h", 86400: "24 h" });

/** Every change of state in the window, as a table. @param {{from: number, to: number}} props */
function Changes({ from, to }) {
  const found = [];
  for (const row of past.rows.value.values()) {
    for (const span of row.spans) if (span.begin >= from && span.begin <= to && span.state !== "stopped") found.push(span);
  }
  found.sort((a, b) => b.begin - a.begin);
  const shown = found.slice(0, 100);
  return html`<section aria-label="Changes"><h2>Changes <small>${found.length > shown.length ? `the last 100 of ${found.length}` : counted(found.length, "change")}</small></h2>
    <div class="scroll" tabindex="0" role="group" aria-label="Table, scrolls sideways"><table><thead><tr><th scope="col">When</th><th scope="col">Model</th><th scope="col">State</th><th scope="col">Lasted</th><th scope="col">Why</th><th scope="col">Waited</th></tr></thead>
    <tbody>${shown.map((span) => {
      const decision = past.decisions.value.get(span.cause.decision ?? -1);
      return html`<tr key=${span.id} class=${span.id === chosen.value ? "chosen" : ""}><td>${clock(span.begin)}</td><th scope="row"><${Model} id=${span.model}/></th>
        <td><${State} state=${span.state}/></td><td>${span.end === null ? "…" : duration(span.end - span.begin)}</td>
        <td><button type="button" class="link" onClick=${() => { chosen.value = span.id; }}>${cause(span.cause.why, span.cause, decision)}${span.cause.text && span.cause.why !== "request" ? `: ${span.cause.text}` : ""}</button></td>
        <td>${decision ? duration(decision.waited) : ""}</td></tr>`;
    })}</tbody></table></div></section>`;
}

/** What each model did in the window, in numbers. @param {{from: number, to: number}} props */
function Sums({ from, to }) {
  const overlap = (/** @type {{begin: number, end: number|null}} */ one) => Math.max(0, Math.min(one.end ?? to, to) - Math.max(one.begin, from));
  const sum = (/** @type {{begin: number, end: number|null}[]} */ list) => list.reduce((all, one) => all + overlap(one), 0);
  const found = [...past.rows.value.entries()].map(([id, row]) => ({
    id,
    awake: sum(row.spans.filter((one) => one.state === "ready")),
    moving: sum(row.spans.filter((one) => ["queued", "starting", "waking", "sleepPending", "stopping"].includes(one.state))),
    swaps: row.spans.filter((one) => ["starting", "waking"].includes(one.state) && one.begin >= from && one.begin <= to).length,
    busy: sum(row.busy),
    waited: sum(row.waits),
    requests: row.busy.filter((one) => overlap(one) > 0 || (one.begin >= from && one.begin <= to)).reduce((all, one) => all + one.count, 0),
  })).filter((one) => one.awake || one.moving || one.waited).sort((a, b) => b.awake - a.awake);
  if (!found.length) return null;
  const width = Math.max(1, to - from);
  return html`<section aria-label="In this window"><h2>In this window</h2><div class="scroll" tabindex="0" role="group" aria-label="Table, scrolls sideways"><table><thead><tr><th scope="col">Model</th><th scope="col">Awake</th><th scope="col">Serving</th><th scope="col">Requests</th><th scope="col">Starts and wakes</th><th scope="col">Changing state</th><th scope="col">Requests waited</th></tr></thead>
    <tbody>${found.map((one) => html`<tr key=${one.id}><th scope="row"><${Model} id=${one.id}/></th><td>${duration(one.awake)} <small>${Math.round((100 * one.awake) / width)} %</small></td><td>${duration(one.busy)}</td><td>${one.requests}</td><td>${one.swaps}</td><td>${duration(one.moving)}</td><td>${duration(one.waited)}</td></tr>`)}</tbody></table></div></section>`;
}

export function Page() {
  const [replaying, setReplaying] = useState(false);
  const shown = { width: width.value, end: end.value };
  const [from, to] = bounds(shown, now.value);
  useEffect(() => {
    past.want(Math.floor(from - width.value / 4));
  }, [Math.floor(from / Math.max(60, width.value / 4)), width.value]);
  const span = spanOf(chosen.value);
  const change = (/** @type {import("../timeline/window.js").Window} */ next) => {
    width.value = next.width;
    end.value = next.end;
  };
  return html`<div class="row tools" role="toolbar" aria-label="Window">
      ${WIDTHS.map((one) => html`<button type="button" aria-pressed=${Math.abs(width.value - one) < 1} onClick=${() => { width.value = one; }}>${WORDS_OF_WIDTHS[one]}</button>`)}
      <button type="button" aria-pressed=${end.value === null} onClick=${() => { end.value = null; }}>Live</button>
      <button type="button" class="end" aria-pressed=${replaying} onClick=${() => setReplaying(!replaying)}>Play with other settings</button>
    </div>
    ${names.value.length
      ? html`<${Picture} title="Models and memory over time" rows=${past.rows.value} names=${names.value} samples=${past.samples.value} shown=${shown} now=${exactly} onShown=${change} chosen=${chosen.value}
          onChoose=${(/** @type {Span|null} */ one) => { chosen.value = one?.id ?? null; }}/>`
      : html`<p class="quiet">Nothing has happened yet. The timeline begins with the first request.</p>`}
    <p class="legend">${["ready", "queued", "starting", "waking", "sleepPending", "asleep", "stopping", "failed"].map((state) => html`<span class="key ${state}">${state === "ready" ? "awake" : state === "sleepPending" ? "falling asleep" : state}</span>`)}<span class="key busy">serves requests</span><span class="key waits">requests wait</span></p>
    ${replaying && html`<${Replay} from=${from} to=${to} names=${names.value} shown=${shown} onShown=${change}/>`}
    ${span && html`<${Why} span=${span} decision=${past.decisions.value.get(span.cause.decision ?? -1)} now=${now.value} onClose=${() => { chosen.value = null; }}/>`}
    <${Sums} from=${from} to=${to}/>
    <${Changes} from=${from} to=${to}/>`;
}
