// @ts-check
// Configuration: the files with their problems, and what a reload would change.
import { useEffect, useState } from "../vendor/hooks.mjs";
import { get, post } from "../api.js";
import { counted, listed } from "../format.js";
import { html } from "../html.js";
import { Action, attempt, confirmed, say } from "../parts.js";

export const kinds = /** @type {string[]} */ ([]);
export const title = "Configuration";

/** @typedef {{file: string, line: number, column: number, path: string, message: string}} Problem */

const CHANGES = /** @type {[string, string][]} */ ([
  ["added", "added"],
  ["removed", "removed when their requests have ended"],
  ["replaced", "replaced by a new process when their requests have ended"],
  ["adjusted", "changed without a new process"],
  ["settings", "changed for the whole file"],
]);

/** @param {{told: any}} props */
function Changes({ told }) {
  if (!told.changes) return html`<p class="bad">llamadoze cannot use these files. The current configuration stays in effect.</p>`;
  const list = CHANGES.filter(([name]) => told.changes[name].length);
  if (!list.length) return html`<p class="quiet">The files match the configuration in effect: a reload would change nothing.</p>`;
  return html`<dl>${list.map(([name, text]) => html`<dt>${counted(told.changes[name].length, name === "settings" ? "key" : "model")}</dt><dd><b>${listed(told.changes[name])}</b> <small>${text}</small></dd>`)}</dl>`;
}

/** @param {unknown} value */
const shown = (value) => (value === null || value === undefined ? "default" : typeof value === "string" ? value : JSON.stringify(value));

/** @param {{list: {model: string, key: string, old: unknown, new: unknown}[]}} props */
function Differences({ list }) {
  if (!list?.length) return null;
  return html`<div class="scroll" tabindex="0" role="group" aria-label="Table, scrolls sideways"><table class="differences"><thead><tr><th scope="col">Model</th><th scope="col">Key</th><th scope="col">In effect</th><th scope="col">In the files</th></tr></thead>
    <tbody>${list.map((one) => html`<tr><td>${one.model || html`<small>whole file</small>`}</td><td><code>${one.key}</code></td><td class="value">${shown(one.old)}</td><td class="value">${shown(one.new)}${shown(one.old) === shown(one.new) && html` <small>a different secret</small>`}</td></tr>`)}</tbody></table></div>`;
}

/** @param {{list: Problem[], kind: string, onShow: (one: Problem) => void}} props */
function Problems({ list, kind, onShow }) {
  if (!list.length) return null;
  return html`<section aria-label=${kind}><h2>${kind} <small>${list.length}</small></h2><ul class="problems" role="list">${list.map((one) => html`<li class=${kind === "Problems" ? "bad" : ""}>
    <button type="button" class="link" onClick=${() => onShow(one)}>${one.file.split("/").pop()}:${one.line}</button> ${one.path && html`<code>${one.path}</code> `}${one.message}</li>`)}</ul></section>`;
}

/** @param {{file: {path: string, text: string}, marked: Map<number, Problem[]>, number: number}} props */
function File({ file, marked, number }) {
  const lines = file.text.split("\n");
  return html`<section aria-label=${file.path}><h2>${file.path}</h2><div class="file" tabindex="0" role="region" aria-label="Text of ${file.path}">
    ${lines.map((text, place) => {
      const here = marked.get(place + 1) ?? [];
      return html`<p id="line-${number}-${place + 1}" class=${here.length ? "marked" : ""}><span class="number" aria-hidden="true">${place + 1}</span>${text || " "}${here.map((one) => html`<em>${one.message}</em>`)}</p>`;
    })}</div></section>`;
}

export function Page() {
  const [told, setTold] = useState(/** @type {any} */ (null));
  const look = () => attempt("", async () => setTold(await get("api/config")));
  useEffect(() => {
    look();
  }, []);
  if (!told) return html`<p class="quiet">llamadoze reads the files.</p>`;
  const reload = async () => {
    const cut = [...(told.changes?.removed ?? []), ...(told.changes?.replaced ?? [])];
    const text = `Reload the files? llamadoze stops the ${cut.length > 1 ? "processes" : "process"} of ${listed(cut)} when the requests there have ended.`;
    if (cut.length && !(await confirmed(text, "Reload"))) return;
    const found = await attempt("", () => post("api/reload"));
    if (found) say("Reloaded");
    await look();
  };
  const all = [...told.problems, ...told.warnings];
  const show = (/** @type {Problem} */ one) => document.getElementById(`line-${told.files.findIndex((/** @type {any} */ file) => file.path === one.file)}-${one.line}`)?.scrollIntoView({ block: "center" });
  return html`<div class="row"><${Action} label="Check again" reads=${true} onClick=${look}/><${Action} label="Reload" name="Reload the files" disabled=${!told.good} onClick=${reload}/><a class="end" href="../api/config">As JSON</a></div>
    <section aria-label="What a reload would change"><h2>What a reload would change</h2><${Changes} told=${told}/><${Differences} list=${told.differences}/></section>
    <${Problems} list=${told.problems} kind="Problems" onShow=${show}/>
    <${Problems} list=${told.warnings} kind="Warnings" onShow=${show}/>
    ${told.files.map((/** @type {any} */ file, /** @type {number} */ number) => {
      const marked = new Map();
      for (const one of all.filter((each) => each.file === file.path)) marked.set(one.line, [...(marked.get(one.line) ?? []), one]);
      return html`<${File} key=${file.path} file=${file} marked=${marked} number=${number}/>`;
    })}
    ${!told.files.length && html`<p class="quiet">llamadoze cannot read the files, so it does not show their text: it may contain secrets.</p>`}`;
}
