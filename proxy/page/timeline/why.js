// @ts-check
// Why a span began: the cause, how long the request had waited, the rule, which models made room
// and what was proved.
import { useEffect, useRef } from "../vendor/hooks.mjs";
import { WORDS, clock, counted, duration, moment } from "../format.js";
import { html } from "../html.js";
import { Model } from "../parts.js";
import { cause, lasted, proved } from "../words.js";

/**
 * @typedef {import("./past.js").Span} Span
 * @typedef {import("./past.js").Decision} Decision
 */

/** @param {string} rule */
const RULES = /** @type {Record<string, string>} */ ({
  "one at a time": "one model runs at a time",
  groups: "the groups say which models run beside each other",
  matrix: "the matrix says which models run beside each other",
  memory: "the memory says which models run beside each other",
});

/** @param {{decision: Decision}} props */
function Victims({ decision }) {
  if (!decision.victims.length) return html`<p>No model had to make room.</p>`;
  return html`<div class="scroll" tabindex="0" role="group" aria-label="Table, scrolls sideways"><table><caption>Models that made room</caption><thead><tr><th scope="col">Model</th><th scope="col">Why it could make room</th>
    <th scope="col">Expected time</th><th scope="col">Actual time</th><th scope="col">Time to return</th><th scope="col">Proof</th></tr></thead>
    <tbody>${decision.victims.map((one) => html`<tr key=${one.model}><th scope="row"><${Model} id=${one.model}/></th><td>${one.because}</td>
      <td>${one.to_rest ? duration(one.to_rest) : "not measured"}</td><td>${one.took === undefined ? "–" : duration(one.took)}</td>
      <td>${one.to_return ? duration(one.to_return) : "not measured"}</td><td>${proved(one.proved).join("; ") || "–"}</td></tr>`)}</tbody></table></div>`;
}

/** @param {{span: Span, decision: Decision|undefined, now: number, onClose: () => void}} props */
export function Why({ span, decision, now, onClose }) {
  const box = useRef(/** @type {HTMLElement|null} */ (null));
  useEffect(() => {
    box.current?.focus({ preventScroll: true });
    box.current?.scrollIntoView({ block: "nearest" });
  }, [span.id]);
  const steps = span.steps ?? [];
  const proofs = proved(span.proof);
  return html`<section class="why" aria-label="Why" tabindex="-1" ref=${box}>
    <header class="row"><h2>${span.model} <span class="state ${span.state}">${WORDS[span.state] ?? span.state}</span></h2>
    <button type="button" class="end" onClick=${onClose}>Close</button></header>
    <dl>
      <dt>When</dt><dd>${moment(span.begin)}${span.end ? ` to ${clock(span.end)}` : ""}, ${lasted(span, now)}</dd>
      <dt>Why</dt><dd>${cause(span.cause.why, span.cause, decision)}${span.cause.text && span.cause.why !== "request" ? `: ${span.cause.text}` : ""}</dd>
      ${decision && html`
        <dt>Requested by</dt><dd>${decision.request ? html`request <code>${decision.request}</code>` : decision.why}${decision.client ? ` from ${decision.client}` : ""}${decision.key ? `, key ${decision.key}` : ""}, for <${Model} id=${decision.model}/></dd>
        <dt>Waited before</dt><dd>${duration(decision.waited)}${decision.waiting > 1 ? `; ${counted(decision.waiting, "request")} waited` : ""}</dd>
        <dt>Rule</dt><dd>${RULES[decision.rule] ?? decision.rule}</dd>`}
      ${steps.length > 0 && html`<dt>Steps</dt><dd><ol>${steps.map((step) => html`<li>${step.name}: ${duration(step.took)}</li>`)}</ol></dd>`}
      ${proofs.length > 0 && html`<dt>Proof</dt><dd>${proofs.join("; ")}</dd>`}
      ${span.failure && html`<dt>Failure</dt><dd class="bad">${span.failure}</dd>`}
      ${span.saved ? html`<dt>Saved</dt><dd>${duration(span.saved)} compared with a start</dd>` : ""}
      ${decision && decision.ready && html`<dt>Result</dt><dd>${decision.model} was ready after ${duration(decision.ready - decision.at)}</dd>`}
    </dl>
    ${decision && html`<${Victims} decision=${decision}/>`}
  </section>`;
}
