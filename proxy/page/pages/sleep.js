// @ts-check
// Sleep: the memory that each cycle freed and left, the time of each step, failures, and saved time.
import { useEffect } from "../vendor/hooks.mjs";
import { computed } from "../vendor/signals.mjs";
import { bytes, counted, duration, moment } from "../format.js";
import { html } from "../html.js";
import { Model } from "../parts.js";
import { exactly, models, now } from "../store.js";
import * as past from "../timeline/past.js";

export const kinds = ["timeline"];
export const title = "Sleep";
const DAY = 86400;
const MOST = 40; // cycles in a picture
const HEIGHT = 60;

/** @typedef {import("../timeline/past.js").Span} Span */

/** The beginning of today. */
const today = () => new Date(exactly() * 1000).setHours(0, 0, 0, 0) / 1000;

/** Seconds that wakes saved compared with starts, today and in total. */
const saved = computed(() => {
  let ofToday = 0;
  let wakes = 0;
  const since = today();
  for (const row of past.rows.value.values()) {
    for (const span of row.spans) {
      if (span.saved !== undefined && span.begin >= since) {
        ofToday += span.saved;
        wakes += 1;
      }
    }
  }
  const all = [...models.value.values()].reduce((sum, one) => sum + (one.costs.saved ?? 0), 0);
  return { today: ofToday, wakes, all };
});

/** @param {{spans: Span[], kind: string, limit: number}} props */
function Cycles({ spans, kind, limit }) {
  const list = spans.filter((one) => one.proof?.memory?.[kind]).slice(-MOST);
  if (!list.length) return html`<p class="quiet">No cycle was measured during the last day.</p>`;
  const amounts = list.map((one) => /** @type {import("../timeline/past.js").Amount} */ (one.proof?.memory?.[kind]));
  const most = Math.max(...amounts.map((one) => one.awake), 1);
  const least = Math.min(...amounts.map((one) => one.left));
  const y = (/** @type {number} */ value) => HEIGHT - (HEIGHT * value) / most;
  const last = amounts[amounts.length - 1];
  const name = kind === "gpu" ? "GPU" : kind;
  const text = `${counted(list.length, "cycle")} of ${name} memory; the last freed ${bytes(last.freed)} and left ${bytes(last.left)}`;
  const step = 100 / MOST;
  return html`<figure class="cycles"><svg viewBox="0 0 100 ${HEIGHT}" preserveAspectRatio="none" role="img" aria-label=${text} height=${HEIGHT} width="100%">
      ${amounts.map((one, place) => html`<g><rect class="freed" x=${place * step} width=${step * 0.8} y=${y(one.awake)} height=${(HEIGHT * one.freed) / most}/>
        <rect class="left" x=${place * step} width=${step * 0.8} y=${y(one.left)} height=${(HEIGHT * one.left) / most}/></g>`)}
      ${limit > 0 && least + limit < most && html`<line class="limit" x1="0" x2="100" y1=${y(least + limit)} y2=${y(least + limit)}/>`}
    </svg><figcaption>${text}${last.trend >= 1 << 20 ? `; ${bytes(last.trend)} more with each sleep` : list.length > 1 ? "; the memory left after a sleep does not grow" : ""}${limit > 0 ? `. llamadoze replaces the process when the memory left after a sleep has grown by ${bytes(limit)} (the dashed line)` : ""}. ${html`<span class="key freed">freed</span> <span class="key left">left</span>`}</figcaption></figure>`;
}

/** @param {{model: import("../store.js").Model}} props */
function Sleeper({ model }) {
  const spans = past.rows.value.get(model.id)?.spans ?? [];
  const tried = spans.filter((one) => one.state === "sleepPending" && one.end !== null);
  const sleeps = tried.filter((one) => !one.failure);
  const kinds = [...new Set(sleeps.flatMap((one) => Object.keys(one.proof?.memory ?? {})))];
  const failures = spans.filter((one) => one.failure && ["sleepPending", "waking", "asleep"].includes(one.state));
  const costs = model.costs;
  const count = costs.counts;
  const cost = (/** @type {"start"|"stop"|"sleep"|"wake"} */ name) => html`<td>${costs[name] === null ? "–" : duration(costs[name] ?? 0)} <small>${count[name] ? `${count[name]}×` : ""}</small></td>`;
  return html`<article class="sleeper" aria-label="Sleep of ${model.id}"><h3><${Model} id=${model.id}/> ${model.sleep && !model.sleep.trusted && html`<span class="bad">not trusted</span>`}</h3>
    <div class="scroll" tabindex="0" role="group" aria-label="Table, scrolls sideways"><table><thead><tr><th scope="col">A sleep takes</th><th scope="col">A wake takes</th><th scope="col">A start takes</th><th scope="col">A stop takes</th><th scope="col">Saved in total</th></tr></thead>
    <tbody><tr>${cost("sleep")}${cost("wake")}${cost("start")}${cost("stop")}<td>${duration(costs.saved)}</td></tr></tbody></table></div>
    ${kinds.map((kind) => html`<${Cycles} key=${kind} spans=${sleeps} kind=${kind} limit=${model.maxGrowth}/>`)}
    ${!kinds.length && html`<p class="quiet">${sleeps.length ? `${counted(sleeps.length, "sleep")} during the last day; memory was not measured.` : "The model has not slept during the last day."}</p>`}
    ${failures.length > 0 && html`<ul class="failures" aria-label="Failures">${failures.slice(-5).map((one) => html`<li class="bad">${moment(one.begin)}: ${one.failure}</li>`)}</ul>`}
    ${model.sleep?.failures ? html`<p class="bad">${counted(model.sleep.failures, "failure")} in a row. ${model.sleep.lastFailure}</p>` : ""}
  </article>`;
}

export function Page() {
  useEffect(() => {
    past.want(now.peek() - DAY);
  }, []);
  const sleepers = [...models.value.values()].filter((one) => one.knowsSleep).sort((a, b) => b.costs.saved - a.costs.saved || a.id.localeCompare(b.id));
  const others = models.value.size - sleepers.length;
  return html`<p class="headline">Today sleep saved ${duration(saved.value.today)}. <small>${counted(saved.value.wakes, "wake")} today; ${duration(saved.value.all)} in total. This is the time saved by waking models instead of starting them.</small></p>
    ${sleepers.map((one) => html`<${Sleeper} key=${one.id} model=${one}/>`)}
    ${!sleepers.length && html`<p>No model can sleep. Give a model <code>sleep: vllm</code>, or <code>cmdSleep</code> and <code>cmdWake</code>.</p>`}
    ${others > 0 && sleepers.length > 0 && html`<p class="quiet">${counted(others, "model")} cannot sleep.</p>`}`;
}
