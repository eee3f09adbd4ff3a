// @ts-check
// Actions on a model: load, sleep, wake, unload, pin. The page asks first if requests would be cut.
import { inPath, post } from "../api.js";
import { counted, duration } from "../format.js";
import { html } from "../html.js";
import { Action, attempt, confirmed } from "../parts.js";
import { leases } from "../store.js";

/** @typedef {import("../store.js").Model} Model */

const HOLDER = "the page";
const PIN = 3600; // seconds

/** @param {Model} model */
async function unload(model) {
  const users = model.in_flight + model.waiting;
  const cold = model.costs.start ? ` Starting it takes ${duration(model.costs.start)}.` : "";
  if (users) {
    const text = `Unload ${model.id}? ${counted(model.in_flight, "request")} will be cut${model.waiting ? `, and ${counted(model.waiting, "waiting request")} will be refused` : ""}.${cold}`;
    if (!(await confirmed(text, "Unload it"))) return;
  } else if (model.state === "asleep" && cold) {
    if (!(await confirmed(`Unload ${model.id}? The model is asleep and could wake instead.${cold}`, "Unload it"))) return;
  }
  await attempt(`${model.id} is unloaded`, () => post(`api/models/unload/${inPath(model.id)}`));
}

/** @param {Model} model */
async function pin(model) {
  const body = { model: model.id, seconds: PIN, holder: HOLDER, reason: "pinned from the page" };
  await attempt(`${model.id} is pinned for an hour`, () => post("api/leases", body));
}

/** @param {Model} model */
async function unpin(model) {
  const lease = leases.value.find((one) => one.model === model.id && one.holder === HOLDER);
  if (lease) await attempt(`${model.id} is no longer pinned`, () => post(`api/leases/${lease.id}`, undefined, "DELETE"));
}

/**
 * @param {Model} model
 * @param {boolean} [short] only the most important actions
 */
export function actionsOf(model, short = false) {
  const id = () => inPath(model.id);
  const found = [];
  const is = (/** @type {string[]} */ ...states) => states.includes(model.state);
  if (is("stopped", "failed")) {
    found.push(html`<${Action} key="load" label="Load" name="Load ${model.id}" onClick=${() => attempt(`${model.id} is ready`, () => post(`api/models/load/${id()}`))}/>`);
  }
  if (is("asleep", "sleepPending")) {
    found.push(html`<${Action} key="wake" label="Wake" name="Wake ${model.id}" onClick=${() => attempt(`${model.id} is awake`, () => post(`api/models/wake/${id()}`))}/>`);
  }
  if (is("ready") && model.knowsSleep) {
    found.push(html`<${Action} key="sleep" label="Sleep" name="Put ${model.id} to sleep" onClick=${() => attempt(`${model.id} sleeps`, () => post(`api/models/sleep/${id()}`))}/>`);
  }
  if (!is("stopped", "failed") || model.leftover) {
    found.push(html`<${Action} key="unload" label="Unload" name="Unload ${model.id}" onClick=${() => unload(model)}/>`);
  }
  if (short) return found;
  const mine = leases.value.some((one) => one.model === model.id && one.holder === HOLDER);
  found.push(
    mine
      ? html`<${Action} key="pin" label="Unpin" name="Unpin ${model.id}" onClick=${() => unpin(model)}/>`
      : html`<${Action} key="pin" label="Pin 1 h" name="Pin ${model.id} for an hour" onClick=${() => pin(model)}/>`,
  );
  if (is("ready")) {
    found.push(html`<a key="own" class="button" href="../upstream/${encodeURI(model.id)}/" target="_blank" rel="noreferrer" aria-label="Open the page of the model server of ${model.id}">Open</a>`);
  }
  return found;
}
