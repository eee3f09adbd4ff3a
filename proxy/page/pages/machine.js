// @ts-check
// The machine: its processors, memory, network and GPUs during the last hour, and its hardware.
import { useEffect, useRef, useState } from "../vendor/hooks.mjs";
import { Refused, get } from "../api.js";
import { bytes, clock } from "../format.js";
import { html } from "../html.js";
import { exactly } from "../store.js";
import { copy, kept, say } from "../parts.js";

export const kinds = /** @type {string[]} */ ([]);
export const title = "Machine";
const EVERY = 5000; // milliseconds
const COLOURS = ["#3f9a45", "#4a8fe0", "#ef6c00", "#8e24aa", "#00838f", "#6d4c41"];
const width = kept("machine.window", 900);

/** @type {Promise<any>|null} */
let loading = null;

/** Load the chart library when a chart first needs it. @returns {Promise<any>} */
function charts() {
  loading ??= new Promise((resolve, reject) => {
    const style = document.createElement("link");
    style.rel = "stylesheet";
    style.href = "vendor/uplot.css";
    const script = document.createElement("script");
    script.src = "vendor/uplot.js";
    script.onload = () => resolve(/** @type {any} */ (globalThis).uPlot);
    script.onerror = () => reject(new Error("vendor/uplot.js"));
    document.head.append(style, script);
  });
  return loading;
}

/** @param {{title: string, unit: string, times: number[], series: {label: string, values: (number|null)[]}[], most?: number}} props */
function Chart({ title: name, unit, times, series, most }) {
  const box = useRef(/** @type {HTMLElement|null} */ (null));
  const chart = useRef(/** @type {any} */ (null));
  const data = [times, ...series.map((one) => one.values)];
  const last = series.map((one) => `${one.label} ${one.values[one.values.length - 1] ?? "–"} ${unit}`).join(", ");
  useEffect(() => {
    let gone = false;
    charts().then((Plot) => {
      if (gone || !box.current) return;
      const ink = getComputedStyle(document.body).color;
      const axis = { stroke: ink, grid: { stroke: "rgb(128 128 128 / 25%)" }, ticks: { stroke: "rgb(128 128 128 / 25%)" } };
      chart.current = new Plot(
        {
          width: box.current.clientWidth, height: 180, cursor: { sync: { key: "machine" } },
          scales: { x: { range: () => [exactly() - width.value, exactly()] }, y: { range: (/** @type {any} */ _, /** @type {number} */ low, /** @type {number} */ high) => [0, most ?? Math.max(high * 1.1, 1)] } },
          legend: { show: false },
          axes: [{ ...axis, values: (/** @type {any} */ _, /** @type {number[]} */ at) => at.map((one) => clock(one).slice(0, 5)) }, { ...axis, size: 60 }],
          series: [{}, ...series.map((one, place) => ({ label: one.label, stroke: COLOURS[place % COLOURS.length], width: 1.5, points: { show: false } }))],
        },
        data,
        box.current,
      );
    }, () => say("The charts could not be loaded", true));
    return () => {
      gone = true;
      chart.current?.destroy();
      chart.current = null;
    };
  }, [series.length]);
  useEffect(() => {
    chart.current?.setData(data);
  });
  useEffect(() => {
    const watch = new ResizeObserver(() => box.current && chart.current?.setSize({ width: box.current.clientWidth, height: 180 }));
    if (box.current) watch.observe(box.current);
    return () => watch.disconnect();
  }, []);
  return html`<figure class="chart" role="group" aria-label="${name}. Now: ${last}"><figcaption>${name} <small>${unit}</small> <span class="legend">${series.map((one, place) => html`<span style=${{ color: COLOURS[place % COLOURS.length] }}>● <span class="quiet">${one.label} ${one.values[one.values.length - 1] ?? "–"}</span></span>`)}</span></figcaption><div ref=${box} aria-hidden="true"></div></figure>`;
}

/** @param {any[]} list @param {string} key */
const column = (list, key) => list.map((one) => (one[key] < 0 ? null : one[key]));

/** @param {{told: any}} props */
function Charts({ told }) {
  const since = exactly() - width.value;
  const at = (/** @type {any} */ one) => Date.parse(one.timestamp) / 1000;
  const system = told.sys_stats.filter((/** @type {any} */ one) => at(one) >= since);
  if (!system.length) return html`<p class="quiet">No samples yet.</p>`;
  const times = system.map(at);
  const rate = (/** @type {string} */ key) => system.map((/** @type {any} */ one, /** @type {number} */ place) => {
    if (!place) return null;
    const sum = (/** @type {any} */ sample) => sample.net_io.filter((/** @type {any} */ net) => net.name !== "lo").reduce((/** @type {number} */ all, /** @type {any} */ net) => all + net[key], 0);
    return Math.max(0, Math.round((sum(one) - sum(system[place - 1])) / Math.max(0.1, times[place] - times[place - 1]) / 1024));
  });
  const gpus = [...new Set(told.gpu_stats.map((/** @type {any} */ one) => one.uuid))];
  const mean = system.map((/** @type {any} */ one) => Math.round(one.cpu_util_per_core.reduce((/** @type {number} */ a, /** @type {number} */ b) => a + b, 0) / Math.max(1, one.cpu_util_per_core.length)));
  return html`<div class="charts"><${Chart} title="Processors" unit="%" times=${times} most=${100} series=${[{ label: "in use", values: mean }]}/>
    <${Chart} title="Memory" unit="MiB" times=${times} series=${[{ label: "used", values: column(system, "mem_used_mb") }, { label: "swap", values: column(system, "swap_used_mb") }]}/>
    <${Chart} title="Load" unit="" times=${times} series=${[{ label: "1 min", values: column(system, "load_avg_1") }, { label: "15 min", values: column(system, "load_avg_15") }]}/>
    <${Chart} title="Network" unit="KiB/s" times=${times} series=${[{ label: "received", values: rate("bytes_recv") }, { label: "sent", values: rate("bytes_sent") }]}/>
    ${gpus.map((uuid) => {
      const list = told.gpu_stats.filter((/** @type {any} */ one) => one.uuid === uuid && at(one) >= since);
      if (!list.length) return null;
      const when = list.map(at);
      return html`<${Chart} key=${`${uuid}-use`} title="GPU ${list[0].id} ${list[0].name}" unit="%" times=${when} most=${100} series=${[{ label: "busy", values: column(list, "gpu_util_pct") }, { label: "memory", values: column(list, "mem_util_pct") }]}/>
        <${Chart} key=${`${uuid}-heat`} title="GPU ${list[0].id}: temperature and power" unit="°C, W" times=${when} series=${[{ label: "°C", values: column(list, "temp_c") }, { label: "W", values: column(list, "power_draw_w") }]}/>`;
    })}</div>`;
}

function Hardware() {
  const [told, setTold] = useState(/** @type {any} */ (null));
  useEffect(() => {
    get("api/hardware").then(setTold, () => {});
  }, []);
  if (!told) return null;
  const facts = [
    ["System", `${told.operating_system.version || told.operating_system.name}, kernel ${told.operating_system.kernel}`],
    ["Processor", `${told.cpu.model}, ${told.cpu.physical_cores} cores, ${told.cpu.logical_cores} threads`],
    ["Memory", bytes(told.memory.capacity_bytes)],
    ...told.accelerators.map((/** @type {any} */ one) => [`GPU ${one.index}`, `${one.model}, ${bytes(one.memory.capacity_bytes)}${one.driver ? `, driver ${one.driver}` : ""}`]),
  ];
  return html`<section aria-label="Hardware"><header class="row"><h2>Hardware</h2><button type="button" onClick=${() => copy(facts.map((pair) => pair.join(": ")).join("\n"))}>Copy</button></header>
    <dl class="facts">${facts.map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>`)}</dl>${!told.accelerators.length && html`<p class="quiet">No GPU was found.</p>`}</section>`;
}

export function Page() {
  const [told, setTold] = useState(/** @type {any} */ (null));
  const [off, setOff] = useState(false);
  useEffect(() => {
    let gone = false;
    /** @type {number|undefined} */
    let timer;
    const look = async () => {
      let pause = EVERY;
      try {
        const found = document.hidden ? null : await get("api/performance");
        if (found && !gone) setTold(found);
        if (found && !found.sys_stats.length) pause = 1000;
      } catch (error) {
        if (!gone && error instanceof Refused && error.status === 503) setOff(true);
      }
      if (!gone) timer = setTimeout(look, pause);
    };
    look();
    return () => {
      gone = true;
      clearTimeout(timer);
    };
  }, []);
  return html`<div class="row" role="toolbar" aria-label="Window">${[300, 900, 3600].map((one) => html`<button type="button" aria-pressed=${width.value === one} onClick=${() => { width.value = one; }}>${one === 3600 ? "1 h" : `${one / 60} min`}</button>`)}</div>
    ${off && html`<p>llamadoze does not sample the machine, because <code>performance.disabled</code> is set.</p>`}
    ${told && html`<${Charts} told=${told}/>`}<${Hardware}/>`;
}
