// @ts-check
// One finished request with its headers and bodies. A stream is shown as the text that it contains.
import { useEffect, useState } from "../vendor/hooks.mjs";
import { get } from "../api.js";
import { html } from "../html.js";
import { Dialog, copy } from "../parts.js";

const MOST = 200000; // characters of a body that are shown

/** @param {string} text base64 @returns {string} */
function decoded(text) {
  const raw = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const found = new TextDecoder().decode(raw);
  return /\u0000/.test(found.slice(0, 1000)) ? `${raw.length} bytes that are not text` : found;
}

/** @param {string} text @returns {string} */
function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

/** The model's text in a stream of events. @param {string} text @returns {{reasoning: string, content: string}|null} */
export function spoken(text) {
  let content = "";
  let reasoning = "";
  for (const line of text.split("\n")) {
    if (!line.startsWith("data:") || line.includes("[DONE]")) continue;
    try {
      const event = JSON.parse(line.slice(5));
      const delta = event.choices?.[0]?.delta ?? {};
      content += delta.content ?? event.choices?.[0]?.text ?? event.delta?.text ?? (typeof event.delta === "string" ? event.delta : "");
      reasoning += delta.reasoning_content ?? delta.reasoning ?? event.delta?.thinking ?? "";
    } catch {
      // Not JSON, so not the model's text.
    }
  }
  return content || reasoning ? { content, reasoning } : null;
}

/** @param {{name: string, headers: Record<string, string>, body: string}} props */
function Half({ name, headers, body }) {
  const [raw, setRaw] = useState(false);
  const words = spoken(body);
  const whole = raw ? body : pretty(body);
  const shown = whole.length > MOST ? `${whole.slice(0, MOST)}\n… ${whole.length - MOST} more characters` : whole;
  return html`<section aria-label=${name}><header class="row"><h3>${name}</h3>
      <button type="button" aria-pressed=${raw} onClick=${() => setRaw(!raw)}>Raw</button><button type="button" aria-label="Copy the ${name.toLowerCase()}" onClick=${() => copy(body)}>Copy</button></header>
    <details><summary>${Object.keys(headers).length} headers</summary><dl class="headers">${Object.entries(headers).map(([key, value]) => html`<dt>${key}</dt><dd>${value}</dd>`)}</dl></details>
    ${words && !raw ? html`${words.reasoning && html`<details><summary>Reasoning</summary><pre>${words.reasoning}</pre></details>`}<pre>${words.content}</pre>` : html`<pre>${shown || "empty"}</pre>`}</section>`;
}

/** @param {{row: any, onClose: () => void}} props */
export function Capture({ row, onClose }) {
  const [found, setFound] = useState(/** @type {any} */ (null));
  const [failure, setFailure] = useState("");
  useEffect(() => {
    get(`api/captures/${row.id}`).then(setFound, (error) => setFailure(error.message));
  }, [row.id]);
  return html`<${Dialog} title="Request ${row.id} to ${row.model}" onClose=${onClose}>
    ${failure && html`<p class="bad">${failure}</p>`}
    ${found && html`<${Half} name="Request" headers=${found.req_headers ?? {}} body=${decoded(found.req_body)}/><${Half} name="Answer" headers=${found.resp_headers ?? {}} body=${decoded(found.resp_body)}/>`}
  </${Dialog}>`;
}
