// @ts-check
// Logs of the daemon and of each model, as they are written. Only visible lines are drawn.
import { useEffect, useLayoutEffect, useRef, useState } from "../vendor/hooks.mjs";
import { address, ask, inPath } from "../api.js";
import { bytes, clock, counted } from "../format.js";
import { html } from "../html.js";
import { kept } from "../parts.js";
import { models, readers } from "../store.js";

export const kinds = ["log"];
export const title = "Logs";

const HEIGHT = 20; // pixels of a line
const MOST = 5000; // lines that are kept
const LONGEST = 4000; // characters of a line that are shown

/** @typedef {{id: number, source: string, level: string, text: string, at: string}} Line */

const LEVELS = ["debug", "info", "warning", "error"];
const ANSI = /\u001b\[[0-9;?]{0,64}[A-Za-z]|\u001b\][^\u0007\u001b]{0,256}(?:\u0007|\u001b\\)?|[\u0000-\u0008\u000b-\u001a\u001c-\u001f]/g;
let counter = 0;

/** The level that a model server's line names. @param {string} text */
function guessed(text) {
  const found = /\b(ERROR|CRITICAL|FATAL|WARN(?:ING)?|DEBUG)\b|^\s*(?:[EW])\d{4} /.exec(text.slice(0, 120));
  if (!found) return "info";
  const word = (found[1] ?? (found[0].trim()[0] === "E" ? "ERROR" : "WARN")).toUpperCase();
  if (word.startsWith("WARN")) return "warning";
  return word === "DEBUG" ? "debug" : "error";
}

/** @param {string} source @param {string} raw @returns {Line} */
export function parsed(source, raw) {
  counter += 1;
  if (source === "proxy" && raw.startsWith("{")) {
    try {
      const told = JSON.parse(raw);
      return { id: counter, source, level: told.level ?? "info", text: told.event ?? raw, at: told.timestamp ? clock(Date.parse(told.timestamp) / 1000) : "" };
    } catch {
      // Not a line of the daemon's own log.
    }
  }
  const plain = raw.slice(0, 4 * LONGEST).replace(ANSI, "");
  const text = plain.length > LONGEST || raw.length > 4 * LONGEST ? `${plain.slice(0, LONGEST)} … (${raw.length} characters)` : plain;
  return { id: counter, source, level: guessed(text), text, at: "" };
}

/** Cuts text into lines. The last line may not be complete yet. */
class Cutter {
  constructor() {
    /** @type {Map<string, string>} */
    this.rest = new Map();
  }

  /** @param {string} source @param {string} data @returns {Line[]} */
  cut(source, data) {
    const pieces = ((this.rest.get(source) ?? "") + data).split("\n");
    this.rest.set(source, (pieces.pop() ?? "").slice(-LONGEST * 4));
    return pieces.filter(Boolean).map((one) => parsed(source, one));
  }
}

/** @param {string} source as the daemon names it @param {string} wanted */
const belongs = (source, wanted) => wanted === "" || source === wanted || (wanted === "upstream" && source.startsWith("upstream/"));

/** @param {{source: string, short?: boolean, level?: string, text?: string}} props */
export function Log({ source, short = false, level = "debug", text = "" }) {
  const box = useRef(/** @type {HTMLElement|null} */ (null));
  const all = useRef(/** @type {Line[]} */ ([]));
  const [, redraw] = useState(0);
  const [paused, setPaused] = useState(false);
  const held = useRef(/** @type {Line[]|null} */ (null));
  const [dropped, setDropped] = useState(0);
  const [top, setTop] = useState(0);
  const follows = useRef(true);

  useEffect(() => {
    all.current = [];
    setDropped(0);
    const cutter = new Cutter();
    const add = (/** @type {Line[]} */ lines) => {
      all.current = [...all.current, ...lines].slice(-MOST);
      if (!document.hidden) redraw((count) => count + 1);
    };
    const hear = (/** @type {any[]} */ told) => {
      for (const one of told.filter((each) => belongs(each.source, source))) {
        add(cutter.cut(one.source, one.data));
        if (one.dropped) setDropped((count) => count + one.dropped);
      }
    };
    const abort = new AbortController();
    recall(source, abort.signal).then((lines) => add(lines), () => {});
    readers.add(hear);
    return () => {
      readers.delete(hear);
      abort.abort();
    };
  }, [source]);

  const lines = held.current ?? all.current;
  const least = LEVELS.indexOf(level);
  const wanted = text.toLowerCase();
  const shown = least <= 0 && !wanted ? lines : lines.filter((one) => LEVELS.indexOf(one.level) >= least && (!wanted || one.text.toLowerCase().includes(wanted) || one.source.toLowerCase().includes(wanted)));

  useLayoutEffect(() => {
    if (follows.current && box.current) box.current.scrollTop = box.current.scrollHeight;
  });
  const scroll = () => {
    const element = /** @type {HTMLElement} */ (box.current);
    follows.current = element.scrollTop + element.clientHeight >= element.scrollHeight - 2 * HEIGHT;
    setTop(element.scrollTop);
  };
  const pause = () => {
    held.current = paused ? null : all.current;
    follows.current = paused;
    setPaused(!paused);
  };
  const rows = short ? 14 : Math.max(10, Math.floor((innerHeight - 230) / HEIGHT));
  const first = Math.max(0, Math.min(shown.length - rows, Math.floor((follows.current ? shown.length * HEIGHT : top) / HEIGHT)) - 10);
  const part = shown.slice(first, first + rows + 20);
  const many = source === "" || source === "upstream";
  return html`<div class="row"><button type="button" aria-pressed=${paused} onClick=${pause}>${paused ? "Continue" : "Pause"}</button>
      <span class="quiet">${counted(shown.length, "line")}${dropped ? `; ${bytes(dropped)} left out because they came too fast` : ""}${paused ? "; paused" : ""}</span></div>
    <div class="log" ref=${box} tabindex="0" role="log" aria-live="off" aria-label="Log" onScroll=${scroll} style=${{ height: `${rows * HEIGHT}px` }}>
      <div style=${{ height: `${shown.length * HEIGHT}px` }}><div style=${{ transform: `translateY(${first * HEIGHT}px)` }}>
        ${part.map((one) => html`<p key=${one.id} class=${one.level}>${one.at && html`<time>${one.at}</time> `}${many && html`<b>${one.source.replace("upstream/", "")}</b> `}${one.text}</p>`)}
      </div></div></div>`;
}

/** The lines that were written before. @param {string} source @param {AbortSignal} signal @returns {Promise<Line[]>} */
async function recall(source, signal) {
  const found = [];
  const wanted = source === "" ? ["upstream", "proxy"] : [source];
  for (const one of wanted) {
    const name = one.startsWith("upstream/") ? inPath(one.slice("upstream/".length)) : one;
    const text = await history(`logs/stream/${name}`, signal);
    found.push(...text.split("\n").filter(Boolean).map((line) => parsed(one, line)));
  }
  return found;
}

/** The first piece of a stream, which is the history. @param {string} path @param {AbortSignal} signal */
async function history(path, signal) {
  const own = new AbortController();
  signal.addEventListener("abort", () => own.abort());
  const response = await ask(path, { signal: own.signal });
  const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
  const first = await Promise.race([reader.read(), new Promise((resolve) => setTimeout(() => resolve({ value: undefined }), 500))]);
  own.abort();
  return new TextDecoder().decode(first.value ?? new Uint8Array());
}

const chosen = kept("logs.source", "");
const level = kept("logs.level", "debug");

/** @param {{rest: string}} props */
export function Page({ rest }) {
  const [text, setText] = useState("");
  const source = rest ? `upstream/${rest}` : chosen.value;
  const change = (/** @type {any} */ event) => {
    chosen.value = event.target.value;
    if (rest) location.hash = "logs";
  };
  return html`<form class="row filters" role="search" aria-label="Filter the log" onSubmit=${(/** @type {Event} */ event) => event.preventDefault()}>
      <label>Source <select value=${source} onChange=${change}><option value="">llamadoze and all models</option><option value="proxy">llamadoze</option><option value="upstream">all models</option>
        ${[...models.value.keys()].sort().map((id) => html`<option value=${`upstream/${id}`}>${id}</option>`)}</select></label>
      <label>Level <select value=${level.value} onChange=${(/** @type {any} */ event) => { level.value = event.target.value; }}>${LEVELS.map((one) => html`<option value=${one}>${one}</option>`)}</select></label>
      <label>Search <input type="search" value=${text} onInput=${(/** @type {any} */ event) => setText(event.target.value)}/></label>
      <a class="end" href=${address("logs/stream")} target="_blank" rel="noreferrer">As text</a></form>
    <${Log} key=${source} source=${source} level=${level.value} text=${text}/>`;
}
