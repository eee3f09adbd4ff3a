// @ts-check
// Requests that wait, are in flight, or have finished. A captured request can be opened.
import { useEffect, useState } from "../vendor/hooks.mjs";
import { computed } from "../vendor/signals.mjs";
import { get, post } from "../api.js";
import { bytes, counted, counting, duration, moment, number } from "../format.js";
import { html } from "../html.js";
import { Action, Model, attempt, confirmed, kept } from "../parts.js";
import { connection, ended, flights, models, now, queue } from "../store.js";
import { readyIn, reason } from "../words.js";
import { Capture } from "./capture.js";

export const kinds = ["inflight", "activity"];
export const title = "Requests";

/** @typedef {import("../store.js").Flight} Flight */

const waiting = computed(() => new Map(queue.value.map((one) => [one.request, one])));

/** @param {Flight} one @param {number} at */
const elapsed = (one, at) => one.elapsed_ms / 1000 + (at - (one.at ?? at));

/** @param {string} id @param {string} model */
async function cancel(id, model) {
  if (await confirmed(`Cancel request ${id} to ${model}? The client receives no more of the answer.`, "Cancel it")) {
    await attempt("Cancelled", () => post(`api/inflight/${id}/cancel`));
  }
}

function Queue() {
  const at = now.value;
  const byRequest = new Map([...flights.value.values()].map((one) => [one.metadata?.request_id, one]));
  const list = queue.value;
  return html`<section aria-label="Queue"><h2>Waiting <small>${list.length || ""}</small></h2>
    ${list.length === 0 ? html`<p class="quiet">Nothing waits.</p>` : html`<div class="scroll" tabindex="0" role="group" aria-label="Table, scrolls sideways"><table><thead><tr><th scope="col">Place</th><th scope="col">Model</th><th scope="col">Waited</th><th scope="col">Ready</th><th scope="col">Reason</th><th scope="col">Client</th><th scope="col"></th></tr></thead>
      <tbody>${list.map((one) => {
        const flight = byRequest.get(one.request);
        return html`<tr key=${one.request || one.since}><td>${one.place}</td><th scope="row"><${Model} id=${one.model}/></th><td>${counting(at - one.since)}</td><td>${readyIn(one, at)}</td>
          <td>${reason(one, at)}</td><td>${[one.client, one.key].filter(Boolean).join(", ") || one.why}</td>
          <td>${flight && html`<${Action} label="Cancel" name="Cancel request ${flight.id} to ${one.model}" onClick=${() => cancel(flight.id, one.model)}/>`}</td></tr>`;
      })}</tbody></table></div>`}</section>`;
}

function Flights() {
  const at = now.value;
  const list = [...flights.value.values()].filter((one) => !waiting.value.has(one.metadata?.request_id ?? ""));
  return html`<section aria-label="In flight"><h2>In flight <small>${list.length || ""}</small></h2>
    ${list.length === 0 ? html`<p class="quiet">No request is in flight.</p>` : html`<div class="scroll" tabindex="0" role="group" aria-label="Table, scrolls sideways"><table><thead><tr><th scope="col">Id</th><th scope="col">Model</th><th scope="col">Request</th><th scope="col">Elapsed</th><th scope="col">Waited</th><th scope="col">Sent so far</th><th scope="col">Client</th><th scope="col"></th></tr></thead>
      <tbody>${list.map((one) => html`<tr key=${one.id}><td>${one.id}</td><th scope="row"><${Model} id=${one.model}/></th><td>${one.method} ${one.req_path}</td><td>${counting(elapsed(one, at))}</td>
        <td>${one.metadata?.waited_s ? duration(Number(one.metadata.waited_s)) : "–"}</td><td>${bytes(one.resp_bytes)}</td><td>${one.remote_ip}</td>
        <td><${Action} label="Cancel" name="Cancel request ${one.id} to ${one.model}" onClick=${() => cancel(one.id, one.model)}/></td></tr>`)}</tbody></table></div>`}</section>`;
}

const limit = kept("requests.limit", 25);
const COLUMNS = /** @type {[string, string][]} */ ([
  ["id", "Id"], ["time", "When"], ["model", "Model"], ["req_path", "Request"], ["resp_status_code", "Status"],
  ["", "Waited"], ["", "First byte"], ["duration", "Duration"], ["prompt", "Prompt"], ["cached", "Cached"], ["generated", "Generated"], ["gen_speed", "Tokens/s"], ["", "Client"],
]);

/** @param {{row: any, onOpen: (row: any) => void}} props */
function Row({ row, onOpen }) {
  const meta = row.metadata ?? {};
  const ms = (/** @type {string|undefined} */ value) => (value === undefined ? "–" : duration(Number(value) / 1000));
  const bad = row.error_msg || row.resp_status_code >= 400;
  return html`<tr class=${bad ? "failed" : ""}><td>${row.has_capture ? html`<button type="button" class="link" aria-label="Open request ${row.id}" onClick=${() => onOpen(row)}>${row.id}</button>` : row.id}</td>
    <td>${moment(Date.parse(row.timestamp) / 1000)}</td><th scope="row"><${Model} id=${row.model}/></th><td title=${row.error_msg ?? ""}>${meta.method ?? ""} ${row.req_path}${row.error_msg ? html`<br/><small class="bad">${row.error_msg}</small>` : ""}</td>
    <td>${row.resp_status_code || "client disconnected"}</td><td>${ms(meta.waited_ms)}</td><td>${ms(meta.first_byte_ms)}</td><td>${duration(row.duration_ms / 1000)}</td>
    <td>${number(row.tokens.input_tokens)}</td><td>${number(row.tokens.cache_tokens)}</td><td>${number(row.tokens.output_tokens)}</td><td>${number(row.tokens.tokens_per_second, 1)}</td>
    <td>${[meta.client, meta.key, meta.session_id].filter(Boolean).join(", ")}</td></tr>`;
}

/** Save rows as a file. @param {any[]} rows @param {"json"|"md"} form */
function download(rows, form) {
  const head = ["id", "timestamp", "model", "path", "status", "duration_ms", "prompt", "generated", "error"];
  const line = (/** @type {any} */ row) => [row.id, row.timestamp, row.model, row.req_path, row.resp_status_code, row.duration_ms, row.tokens.input_tokens, row.tokens.output_tokens, row.error_msg ?? ""];
  const cells = (/** @type {any[]} */ list) => `| ${list.map((cell) => String(cell).replaceAll("|", "\\|").replaceAll("\n", " ")).join(" | ")} |`;
  const text = form === "json" ? JSON.stringify(rows, null, 2) : [cells(head), cells(head.map(() => "---")), ...rows.map((row) => cells(line(row)))].join("\n");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: form === "json" ? "application/json" : "text/markdown" }));
  link.download = `requests.${form}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

/** A number that changes after requests have ended, at most once in 1.5 seconds. @param {boolean} follows @returns {number} */
function useFresh(follows) {
  const [seen, setSeen] = useState(0);
  const last = ended.value;
  useEffect(() => {
    if (!follows || last === seen) return undefined;
    const timer = setTimeout(() => setSeen(ended.peek()), 1500);
    return () => clearTimeout(timer);
  }, [follows, last === seen]);
  return follows ? seen : 0;
}

/** @param {{model?: string}} props finished requests, of all models or of one */
export function Finished({ model = "" }) {
  const [page, setPage] = useState(1);
  const [sort, setSort] = useState({ by: "id", down: true });
  const [filter, setFilter] = useState({ model, text: "", failed: false });
  const [found, setFound] = useState(/** @type {any} */ (null));
  const [open, setOpen] = useState(/** @type {any} */ (null));
  const [stats, setStats] = useState(/** @type {any} */ (null));
  const query = new URLSearchParams({ page: String(page), limit: String(limit.value), sort: sort.by, order: sort.down ? "desc" : "asc" });
  if (filter.model) query.set("model", filter.model);
  if (filter.text) query.set("text", filter.text);
  if (filter.failed) query.set("failed", "true");
  const asked = query.toString();
  const fresh = useFresh(page === 1);
  useEffect(() => {
    const abort = new AbortController();
    const timer = setTimeout(async () => {
      const [rows, sums] = await Promise.all([get(`api/metrics/activity?${asked}`, abort.signal), get(`api/metrics/stats${filter.model ? `?model=${encodeURIComponent(filter.model)}` : ""}`, abort.signal)].map((one) => one.catch(() => null)));
      if (rows && !abort.signal.aborted) setFound(rows);
      if (sums && !abort.signal.aborted) setStats(sums);
    }, found && filter.text ? 200 : 0);
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [asked, fresh, connection.value]);
  const by = (/** @type {string} */ name) => {
    setSort({ by: name, down: sort.by === name ? !sort.down : true });
    setPage(1);
  };
  const change = (/** @type {any} */ more) => {
    setFilter({ ...filter, ...more });
    setPage(1);
  };
  const rows = found?.data ?? [];
  return html`<section aria-label="Finished"><h2>Finished <small>${found ? found.total : ""}</small></h2>
    ${stats && html`<${Totals} stats=${stats}/>`}
    <form class="row filters" role="search" aria-label="Filter requests" onSubmit=${(/** @type {Event} */ event) => event.preventDefault()}>
      ${!model && html`<label>Model <select value=${filter.model} onChange=${(/** @type {any} */ event) => change({ model: event.target.value })}><option value="">all</option>${[...models.value.keys()].sort().map((id) => html`<option value=${id}>${id}</option>`)}</select></label>`}
      <label>Search <input type="search" value=${filter.text} placeholder="path, client, key, error" onInput=${(/** @type {any} */ event) => change({ text: event.target.value })}/></label>
      <label><input type="checkbox" checked=${filter.failed} onChange=${(/** @type {any} */ event) => change({ failed: event.target.checked })}/> failed only</label>
      <label>Rows <select value=${String(limit.value)} onChange=${(/** @type {any} */ event) => { limit.value = Number(event.target.value); setPage(1); }}>${[10, 25, 50, 100].map((count) => html`<option value=${String(count)}>${count}</option>`)}</select></label>
      <span class="end row"><button type="button" onClick=${() => download(rows, "json")}>Export this page as JSON</button><button type="button" onClick=${() => download(rows, "md")}>as Markdown</button></span>
    </form>
    ${found && !rows.length ? html`<p class="quiet">${filter.text || filter.failed || filter.model ? "No finished request matches" : "No request has finished yet"}.</p>` : html`<div class="scroll" tabindex="0" role="group" aria-label="Table, scrolls sideways"><table class="wide"><thead><tr>${COLUMNS.map(([name, text]) => html`<th scope="col" aria-sort=${sort.by === name && name ? (sort.down ? "descending" : "ascending") : undefined}>${name ? html`<button type="button" class="link" onClick=${() => by(name)}>${text}${sort.by === name ? (sort.down ? " ↓" : " ↑") : ""}</button>` : text}</th>`)}</tr></thead>
      <tbody>${rows.map((/** @type {any} */ row) => html`<${Row} key=${row.id} row=${row} onOpen=${setOpen}/>`)}</tbody></table></div>`}
    ${found && found.total_pages > 1 && html`<nav class="row" aria-label="Pages"><button type="button" disabled=${page <= 1} onClick=${() => setPage(page - 1)}>Newer</button><span>page ${found.page} of ${found.total_pages}</span><button type="button" disabled=${page >= found.total_pages} onClick=${() => setPage(page + 1)}>Older</button></nav>`}
    ${open && html`<${Capture} row=${open} onClose=${() => setOpen(null)}/>`}
  </section>`;
}

/** @param {{stats: any}} props */
function Totals({ stats }) {
  const speed = stats.gen_histogram;
  const parts = [
    counted(stats.total_requests, "request"),
    `${number(stats.total_input_tokens)} prompt tokens`,
    `${number(stats.total_cache_tokens)} of them cached`,
    `${number(stats.total_output_tokens)} generated`,
  ];
  if (stats.waits) parts.push(`half waited less than ${duration(stats.waits.p50 + 0.001)}, 99 % less than ${duration(stats.waits.p99 + 0.001)}, the longest ${duration(stats.waits.max)}`);
  if (speed) parts.push(`half generated faster than ${number(speed.p50, 1)} tokens/s`);
  return html`<p class="totals">${parts.join(" · ")}</p>${speed && html`<${Spread} told=${speed}/>`}`;
}

/** @param {{told: any}} props how fast models generated answers */
function Spread({ told }) {
  const most = Math.max(...told.bins, 1);
  const text = `Tokens a second: from ${number(told.min, 1)} to ${number(told.max, 1)}, half above ${number(told.p50, 1)}`;
  return html`<svg class="spread" viewBox="0 0 ${told.bins.length} 20" preserveAspectRatio="none" role="img" aria-label=${text}><title>${text}</title>${told.bins.map((/** @type {number} */ count, /** @type {number} */ place) => html`<rect x=${place + 0.1} width="0.8" y=${20 - (20 * count) / most} height=${(20 * count) / most}/>`)}</svg>`;
}

export function Page() {
  return html`<${Queue}/><${Flights}/><${Finished}/>`;
}

