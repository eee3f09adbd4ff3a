// @ts-check
// The same requests with other settings: the simulator plays them, and the result is drawn below.
import { useState } from "../vendor/hooks.mjs";
import { post } from "../api.js";
import { counted, duration } from "../format.js";
import { html } from "../html.js";
import { Action, attempt } from "../parts.js";
import { daemon } from "../store.js";
import { Picture } from "./picture.js";

/** @param {{from: number, to: number, names: string[], shown: any, onShown: (shown: any) => void}} props */
export function Replay({ from, to, names, shown, onShown }) {
  const [maxWait, setMaxWait] = useState(String(daemon.value?.maxWait ?? 10));
  const [minActive, setMinActive] = useState("0");
  const [played, setPlayed] = useState(/** @type {any} */ (null));
  const play = async () => {
    const body = { since: from, until: to, maxWait: Number(maxWait), minActive: Number(minActive) };
    const found = await attempt("", () => post("api/simulate", body));
    if (found) setPlayed(found);
  };
  return html`<section class="replay" aria-label="Play with other settings"><h2>The same requests with other settings</h2>
    <form class="row" onSubmit=${(/** @type {Event} */ event) => event.preventDefault()}>
      <label>maxWait <input type="number" min="0" max="86400" value=${maxWait} onInput=${(/** @type {any} */ event) => setMaxWait(event.target.value)}/> s</label>
      <label>minActive <input type="number" min="0" max="86400" value=${minActive} onInput=${(/** @type {any} */ event) => setMinActive(event.target.value)}/> s</label>
      <${Action} label="Play" onClick=${play}/></form>
    ${played && html`<${Outcome} played=${played} names=${names} shown=${shown} onShown=${onShown}/>`}</section>`;
}

/** @param {{played: any, names: string[], shown: any, onShown: (shown: any) => void}} props */
function Outcome({ played, names, shown, onShown }) {
  const rows = new Map();
  played.spans.forEach((/** @type {any} */ span, /** @type {number} */ id) => {
    const row = rows.get(span.model) ?? { spans: [], busy: [], waits: [] };
    row.spans.push({ ...span, id, cause: { why: "request" }, gpus: [] });
    rows.set(span.model, row);
  });
  const line = (/** @type {any} */ one) => html`<td>${one.swaps}</td><td>${duration(one.p50)}</td><td>${duration(one.p99)}</td><td>${duration(one.longest)}</td>`;
  return html`<div class="scroll" tabindex="0" role="group" aria-label="Table, scrolls sideways"><table><caption>${counted(played.requests, "request")}</caption><thead><tr><th scope="col"></th><th scope="col">Swaps</th><th scope="col">Half waited less than</th><th scope="col">99 % less than</th><th scope="col">Longest wait</th></tr></thead>
    <tbody><tr><th scope="row">As played</th>${line(played.outcome)}</tr><tr><th scope="row">As it was</th>${line(played.was)}</tr></tbody></table></div>
    <${Picture} title="The same requests, played" rows=${rows} names=${names} samples=${[]} shown=${shown} now=${() => played.until} onShown=${onShown} still=${true}/>`;
}
