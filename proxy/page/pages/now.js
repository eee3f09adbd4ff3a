// @ts-check
// Now: which model has the GPU, what waits, what comes next and when. Readable from two metres.
import { computed } from "../vendor/signals.mjs";
import { ORDER, WORDS, bytes, counted, counting, listed } from "../format.js";
import { inPath, post } from "../api.js";
import { html } from "../html.js";
import { daemon, memory, models, now, queue } from "../store.js";
import { Action, Model, State, attempt } from "../parts.js";
import { forWhom, left, readyIn, reason, standing } from "../words.js";
import { actionsOf } from "./actions.js";

export const kinds = ["memory"];
export const title = "Now";

/** Models by state, the most important first; stopped models are last. */
const sorted = computed(() =>
  [...models.value.values()].sort((a, b) => ORDER.indexOf(a.state) - ORDER.indexOf(b.state) || a.id.localeCompare(b.id)),
);

/** Models that are awake, or change their state. */
const holding = computed(() => sorted.value.filter((one) => !["stopped", "asleep", "failed"].includes(one.state)));

function Headline() {
  const at = now.value;
  if (daemon.value?.paused) return html`<p class="headline">Paused. <small>No model has the GPU; requests wait or are refused.</small></p>`;
  if (!holding.value.length) {
    const sleepers = sorted.value.filter((one) => one.state === "asleep");
    return html`<p class="headline">No model has the GPU. <small>${sleepers.length ? `${listed(sleepers.slice(0, 4).map((one) => one.id))} ${sleepers.length > 1 ? "sleep" : "sleeps"}.` : "The first request loads its model."}</small></p>`;
  }
  return holding.value.slice(0, 4).map(
    (one) => html`<p class="headline" key=${one.id}><${Model} id=${one.id}/> <span class="state ${one.state}">${WORDS[one.state]}</span> <small>${one.state === "ready" ? `for ${counting(at - one.readySince)}, ` : ""}${standing(one, at)}${one.waiting ? `, ${one.waiting} waiting` : ""}${forWhom(one) ? `; ${forWhom(one)}` : ""}</small></p>`,
  );
}

/** The oldest waiting request of each model. */
const waiting = computed(() => {
  const first = new Map();
  for (const one of queue.value) if (!first.has(one.model)) first.set(one.model, one);
  return [...first.values()].sort((a, b) => a.place - b.place);
});

function Next() {
  const at = now.value;
  const list = waiting.value;
  if (!list.length) return html`<p class="next quiet">Nothing waits.</p>`;
  return html`<ol class="next" aria-label="Waiting models">${list.slice(0, 6).map((one) => {
    const count = queue.value.filter((other) => other.model === one.model).length;
    return html`<li key=${one.model}><${Model} id=${one.model}/> <b>${readyIn(one, at)}</b>
      <small>${counted(count, "request")}, the first since ${counting(at - one.since)} ago: ${reason(one, at, list.filter((other) => other.place < one.place).map((other) => other.model))}</small></li>`;
  })}</ol>${list.length > 6 && html`<p class="quiet">and ${list.length - 6} more models</p>`}`;
}

const PARTS = /** @type {["awake"|"asleep"|"others"|"free", string][]} */ ([
  ["awake", "awake"],
  ["asleep", "left by sleepers"],
  ["others", "others"],
  ["free", "free"],
]);

function Devices() {
  const told = memory.value;
  if (!told) return null;
  return html`<section aria-label="Memory">${told.devices.filter((one) => one.total).map((device) => {
    const parts = PARTS.filter(([kind]) => device[kind] > 0);
    const text = parts.map(([kind, name]) => `${bytes(device[kind])} ${name}`).join(", ");
    const scale = Math.max(device.total, device.awake + device.asleep + device.others);
    const strangers = device.strangers ?? [];
    return html`<div class="device" key=${device.name}><h3>${device.title} <small>${bytes(device.total)}</small></h3>
      <div class="bar" role="img" aria-label="${device.title}: ${text}">${parts.map(
        ([kind]) => html`<span class=${kind} style=${{ width: `${(device[kind] / scale) * 100}%` }} title="${bytes(device[kind])} ${kind}"></span>`,
      )}</div><p class="legend">${parts.map(([kind, name]) => html`<span class="key ${kind}">${bytes(device[kind])} ${name}</span>`)}</p>
      ${strangers.length > 0 && html`<p class="quiet">Others: ${listed(strangers.map((one) => `${one.name || "a process"} (pid ${one.pid}) with ${bytes(one.bytes)}`))}.</p>`}</div>`;
  })}</section>`;
}

/** Problems, each with a remedy. @param {{readOnly: boolean}} props */
function Alarms({ readOnly }) {
  const at = now.value;
  const list = [];
  if (daemon.value?.paused) {
    list.push(html`<li key="paused"><b>Paused.</b> No model starts or wakes.
      ${!readOnly && html`<${Action} label="Resume" onClick=${() => attempt("Resumed", () => post("api/resume"))}/>`}</li>`);
  }
  for (const one of sorted.value) {
    const retry = left(one.retryIn, one.at, at) ?? 0;
    if (one.leftover) {
      list.push(html`<li key=${one.id}><b>${one.id}</b> could not be ended completely: ${one.leftover} may still use its memory.
        ${!readOnly && html`<${Action} label="Give up" name="Give up the leftover of ${one.id}" onClick=${() => attempt(`The leftover of ${one.id} was given up`, () => post(`api/models/unload/${inPath(one.id)}`))}/>`}</li>`);
    } else if (one.state === "failed") {
      list.push(html`<li key=${one.id}><b>${one.id} failed:</b> ${one.failure}.
        ${retry > 0 ? ` It may start again in ${counting(retry)}.` : " The next request starts it again."}
 ${!readOnly && html`<${Action} label="Start now" name="Start ${one.id} now" onClick=${() => attempt(`${one.id} is ready`, async () => {
          await post(`api/models/unload/${inPath(one.id)}`);
          await post(`api/models/load/${inPath(one.id)}`);
        })}/> <a href="#logs/${encodeURIComponent(one.id)}">See its log</a>`}</li>`);
    } else if (one.sleep && !one.sleep.trusted) {
      list.push(html`<li key=${one.id}><b>${one.id}</b> no longer sleeps: ${one.sleep.lastFailure ?? "its sleep failed"}. llamadoze stops it to make room.
        ${one.state === "ready" && !readOnly && html`<${Action} label="Sleep again" name="Let ${one.id} sleep again" onClick=${() => attempt(`${one.id} sleeps`, () => post(`api/models/sleep/${inPath(one.id)}`))}/>`}</li>`);
    }
  }
  return list.length ? html`<ul class="alarms" role="list" aria-label="What is wrong">${list}</ul>` : null;
}

/** @param {{model: import("../store.js").Model, readOnly: boolean}} props */
function Tile({ model, readOnly }) {
  const at = now.value;
  const room = memory.value?.models.find((one) => one.model === model.id);
  const size = room ? room.gpu || room.host : null;
  return html`<li class="tile ${model.state}"><h3><${Model} id=${model.id}/></h3><${State} state=${model.state}/>
    <p>${standing(model, at)}${model.waiting ? html`${standing(model, at) ? ", " : ""}<b>${model.waiting} waiting</b>` : ""}</p>
    <p class="quiet">${size ? bytes(size) : ""}${model.pin ? ` pinned${model.pin.holder ? ` by ${model.pin.holder}` : ""}` : ""}</p>
    ${!readOnly && html`<div class="row">${actionsOf(model, true)}</div>`}</li>`;
}

/** @param {{readOnly?: boolean}} props */
export function Page({ readOnly = false }) {
  const shown = sorted.value.filter((one) => !one.unlisted || one.state !== "stopped");
  return html`<${Alarms} readOnly=${readOnly}/>
    <section class="who" aria-label="Who has the GPU"><${Headline}/></section>
    <section class="queue" aria-label="Queue"><h2>Next</h2><${Next}/></section>
    <${Devices}/>
    <section aria-label="Models"><h2>Models</h2><ul class="tiles" role="list">${shown.map((one) => html`<${Tile} key=${one.id} model=${one} readOnly=${readOnly}/>`)}</ul>
    ${!shown.length && html`<p class="quiet">The configuration has no models.</p>`}</section>`;
}
