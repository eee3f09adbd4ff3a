// @ts-check
// Models: the list of all models, and a page for each with its settings, its log and its requests.
import { useEffect, useState } from "../vendor/hooks.mjs";
import { computed } from "../vendor/signals.mjs";
import { get, inPath, post } from "../api.js";
import { ORDER, bytes, counted, duration } from "../format.js";
import { html } from "../html.js";
import { Action, Model, State, attempt, confirmed, kept } from "../parts.js";
import { daemon, leases, memory, models, now, queue } from "../store.js";
import { reason, standing } from "../words.js";
import { actionsOf } from "./actions.js";
import { Log } from "./logs.js";
import { Finished } from "./requests.js";

export const kinds = ["log", "activity", "memory"];
export const title = "Models";

const unlisted = kept("models.unlisted", true);
const sorted = computed(() => [...models.value.values()].sort((a, b) => ORDER.indexOf(a.state) - ORDER.indexOf(b.state) || a.id.localeCompare(b.id)));

async function unloadAll() {
  const users = sorted.value.reduce((sum, one) => sum + one.in_flight, 0);
  const text = users ? `Unload all models? ${counted(users, "request")} will be cut.` : "Unload all models? Sleeping models must then start instead of waking.";
  if (await confirmed(text, "Unload all")) await attempt("All models are unloaded", () => post("api/models/unload"));
}

/** @param {{model: import("../store.js").Model}} props */
function Row({ model }) {
  const at = now.value;
  const left = Object.values(model.sleep?.memory ?? {})[0]?.left;
  return html`<tr><th scope="row"><${Model} id=${model.id}/>${model.name && html`<br/><small>${model.name}</small>`}${model.aliases.length > 0 && html`<br/><small>also ${model.aliases.join(", ")}</small>`}</th>
    <td><${State} state=${model.state}/> <small>${standing(model, at)}</small></td><td>${model.in_flight || ""}</td><td>${model.waiting || ""}</td>
    <td>${model.costs.wake !== null ? duration(model.costs.wake) : "–"}</td><td>${model.costs.start !== null ? duration(model.costs.start) : "–"}</td>
    <td>${left === undefined ? "–" : bytes(left)}</td><td class="actions">${actionsOf(model)}</td></tr>`;
}

function List() {
  const [text, setText] = useState("");
  const found = sorted.value.filter((one) => (unlisted.value || !one.unlisted) && `${one.id} ${one.name} ${one.aliases.join(" ")}`.toLowerCase().includes(text.toLowerCase()));
  return html`<form class="row filters" role="search" aria-label="Filter models" onSubmit=${(/** @type {Event} */ event) => event.preventDefault()}>
      <label>Search <input type="search" value=${text} onInput=${(/** @type {any} */ event) => setText(event.target.value)}/></label>
      <label><input type="checkbox" checked=${unlisted.value} onChange=${(/** @type {any} */ event) => { unlisted.value = event.target.checked; }}/> show unlisted</label>
      <span class="end"><${Action} label="Unload all" kind="danger" onClick=${unloadAll}/></span></form>
    <div class="scroll" tabindex="0" role="group" aria-label="Table, scrolls sideways"><table class="wide models"><caption>${counted(found.length, "model")}${daemon.value ? `; ${daemon.value.rule}` : ""}</caption><thead><tr><th scope="col">Model</th><th scope="col">State</th><th scope="col">In flight</th><th scope="col">Waiting</th><th scope="col">A wake takes</th><th scope="col">A start takes</th><th scope="col">Memory after sleep</th><th scope="col">Actions</th></tr></thead>
    <tbody>${found.map((one) => html`<${Row} key=${one.id} model=${one}/>`)}</tbody></table></div>`;
}

/** @param {string} id @returns {string} */
function held(id) {
  const one = memory.value?.models.find((other) => other.model === id);
  if (!one) return "nothing";
  const titles = new Map((memory.value?.devices ?? []).map((device) => [device.name, device.title]));
  const parts = Object.entries(one.gpus).map(([name, size]) => `${bytes(size)} of ${titles.get(name) ?? name}`);
  return [...parts, one.host === null ? "" : `${bytes(one.host)} of the host`].filter(Boolean).join(", ") || "not measured";
}

/** Facts about a model, as pairs. @param {import("../store.js").Model} model */
function facts(model) {
  const sizes = (/** @type {{gpus: number[]|null, host: number|null}} */ one) => [...(one.gpus ?? []).map((size) => `${bytes(size)} of a GPU`), one.host === null ? "" : `${bytes(one.host)} of the host`].filter(Boolean).join(", ") || "not measured (needs use: memory)";
  return [
    ["Process", model.pid ? `pid ${model.pid}` : model.cluster?.step ? `step ${model.cluster.step} on ${model.cluster.node}` : "–"],
    ...(model.cluster ? [["Runs in", `allocation ${model.cluster.allocation} of ${model.cluster.name}`]] : []),
    ["Uses now", held(model.id)],
    ["Memory awake", sizes(model.room.awake)],
    ["Memory asleep", sizes(model.room.asleep)],
    ["Sleeps after", model.sleepTtl ? duration(model.sleepTtl) : "only to make room"],
    ["Is stopped after", model.ttl ? duration(model.ttl) : "never"],
    ["Pinned", model.pin ? [model.pin.holder, model.pin.reason, model.pin.seconds === null ? "" : `${duration(model.pin.seconds)} left`].filter(Boolean).join(", ") : "no"],
    ["Context", model.context_length ? `${model.context_length} tokens` : "–"],
    ["Address", model.proxy],
  ];
}

/** @param {{id: string}} props */
function One({ id }) {
  const model = models.value.get(id);
  const [settings, setSettings] = useState("");
  const isKnown = model !== undefined;
  useEffect(() => {
    setSettings("");
    if (!isKnown) return;
    Promise.resolve().then(() => get(`api/config/models/${inPath(id)}`)).then((told) => setSettings(told.yaml), () => setSettings(""));
  }, [id, isKnown]);
  if (!model) return html`<p>There is no model ${id}. <a href="#models">All models</a></p>`;
  const mine = queue.value.find((one) => one.model === id);
  const lease = leases.value.filter((one) => one.model === id);
  return html`<header class="row"><h2>${id} <${State} state=${model.state}/></h2><span class="end row">${actionsOf(model)}</span></header>
    ${model.description && html`<p>${model.description}</p>`}
    <p>${standing(model, now.value)}${mine ? `. Waiting: ${reason(mine, now.value)}` : ""}</p>
    ${model.failure && html`<p class="bad">${model.failure}</p>`}
    ${lease.length > 0 && html`<p>Leases: ${lease.map((one) => `${one.holder}${one.reason ? ` (${one.reason})` : ""} until ${one.expires}`).join(", ")}</p>`}
    <dl class="facts">${facts(model).map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>`)}</dl>
    <details><summary>Settings in effect</summary><pre>${settings || model.cmd}</pre></details>
    <section aria-label="Log"><h2>Log</h2><${Log} source=${`upstream/${id}`} short=${true}/></section>
    <${Finished} key=${id} model=${id}/>`;
}

/** @param {{rest: string}} props */
export function Page({ rest }) {
  return rest ? html`<${One} id=${rest}/>` : html`<${List}/>`;
}
