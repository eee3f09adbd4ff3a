// @ts-check
// What the page knows of the daemon, and the stream of events that tells it.
// Only `take` writes what the stream tells.
import { batch, computed, effect, signal } from "./vendor/signals.mjs";
import { address, get } from "./api.js";
import * as past from "./timeline/past.js";

/**
 * @typedef {import("./format.js").State} State
 * @typedef {{freed: number, left: number, trend: number}} Left
 * @typedef {{model: string, state: string, in_flight: number}} Rival
 * @typedef {{model: string, why: string, request: string, client: string, key: string, since: number,
 *   place: number, readyIn: number|null, readyInMeasured: number|null, behind: Rival[],
 *   closesIn: number|null, state: State, at?: number}} Waiting
 * @typedef {{start: number|null, stop: number|null, sleep: number|null, wake: number|null,
 *   counts: Record<string, number>, saved: number}} Costs
 * @typedef {{id: string, for: {why: string, client: string, key: string, request: string}|null, name: string, description: string, aliases: string[], unlisted: boolean,
 *   state: State, in_flight: number, waiting: number, since: number, readySince: number,
 *   idleSince: number, failure: string|null, leftover: string|null, failures: number, retryIn: number,
 *   readyIn: number|null, readyInMeasured: number|null, canSleep: boolean, knowsSleep: boolean,
 *   leaving: boolean, elsewhere: boolean, ttl: number, sleepTtl: number, cmd: string, proxy: string,
 *   queue: string|null, cluster: {name: string, allocation: string, job: string|null, step: string|null, node: string|null}|null,
 *   pid: number|null, gpus: string[], costs: Costs, maxGrowth: number, share: number|null, at?: number,
 *   pin: {holder: string, reason: string, seconds: number|null}|null,
 *   sleep: {trusted: boolean, failures: number, lastFailure: string|null, memory: Record<string, Left>}|null,
 *   room: {awake: {gpus: number[]|null, host: number|null}, asleep: {gpus: number[]|null, host: number|null}, growth: number, lives: number},
 *   capabilities?: Record<string, boolean>, context_length?: number}} Model
 * @typedef {{name: string, title: string, total: number, awake: number, asleep: number, others: number, free: number, strangers?: {pid: number, name: string, bytes: number}[]}} Device
 * @typedef {{model: string, gpus: Record<string, number>, gpu: number|null, host: number|null}} Holder
 * @typedef {{paused: boolean, ending: boolean, profile: string|null, profiles: string[], rule: string,
 *   maxWait: number, performance: boolean, models: number, now: number}} Daemon
 * @typedef {{id: string, timestamp: string, model: string, req_path: string, method: string,
 *   remote_ip: string, resp_bytes: number, elapsed_ms: number, metadata?: Record<string, string>, at?: number}} Flight
 */

/** @template T @typedef {import("./vendor/signals.mjs").Signal<T>} Signal */

/** Whether the stream is open: "connecting", "live", "lost". @type {Signal<string>} */
export const connection = signal("connecting");
/** Whether the browser's API key allows changes. @type {Signal<boolean>} */
export const mayChange = signal(true);
/** @type {Signal<Daemon|null>} */
export const daemon = signal(null);
/** @type {Signal<Map<string, Model>>} */
export const models = signal(new Map());
/** @type {Signal<Waiting[]>} */
export const queue = signal([]);
/** @type {Signal<{at: number, devices: Device[], models: Holder[]}|null>} */
export const memory = signal(null);
/** @type {Signal<Map<string, Flight>>} */
export const flights = signal(new Map());
/** Counts requests that have ended since the page was opened. @type {Signal<number>} */
export const ended = signal(0);
/** @type {Signal<any[]>} */
export const leases = signal([]);
/** The daemon's clock, in seconds since 1970; updated once a second. @type {Signal<number>} */
export const now = signal(Date.now() / 1000);

let skew = 0; // seconds by which the daemon's clock is ahead of the browser's

/** @returns {number} the daemon's clock at this moment */
export const exactly = () => Date.now() / 1000 + skew;

/** When the stream was lost, on the daemon's clock. @type {Signal<number>} */
export const lostAt = signal(0);

/** Functions that are called with new lines of the log, one for each open log view. @type {Set<(lines: any[]) => void>} */
export const readers = new Set();

export const awake = computed(() => [...models.value.values()].filter((one) => one.state === "ready"));

/** @param {string} text one event's data */
export function take(text) {
  const { type, data } = JSON.parse(text);
  const told = JSON.parse(data);
  batch(() => {
    if (typeof told.now === "number") {
      skew = told.now - Date.now() / 1000;
      if (Math.abs(now.value - told.now) > 1.5) now.value = told.now;
    }
    TAKERS[type]?.(told);
  });
}

/** @type {Record<string, (told: any) => void>} */
const TAKERS = {
  daemon: (told) => {
    daemon.value = told;
  },
  models: (told) => {
    const known = told.operation === "snapshot" ? new Map() : new Map(models.value);
    for (const row of told.models) known.set(row.id, { ...row, at: told.now });
    for (const id of told.gone ?? []) known.delete(id);
    models.value = known;
  },
  queue: (told) => {
    queue.value = told.waiting.map((/** @type {Waiting} */ row) => ({ ...row, at: told.now }));
  },
  memory: (told) => {
    memory.value = told;
    past.sampled(told);
  },
  timeline: (told) => past.heard(told),
  profileChanged: (told) => {
    if (daemon.value) daemon.value = { ...daemon.value, profile: told.active };
  },
  lease: (told) => {
    if (told.operation === "list") leases.value = told.leases;
    else {
      const others = leases.value.filter((one) => one.id !== told.lease.id);
      leases.value = told.operation === "ended" ? others : [...others, told.lease];
    }
  },
  inflight: (told) => {
    const known = told.operation === "snapshot" ? new Map() : new Map(flights.value);
    const at = exactly();
    if (told.operation === "remove") known.delete(told.id);
    else for (const one of told.requests ?? [told.request]) known.set(one.id, { ...one, at });
    flights.value = known;
  },
  activity: () => {
    ended.value += 1;
  },
  log: (told) => {
    for (const reader of readers) reader(told.lines);
  },
};

// The stream. Each page names the kinds of events that it draws. A hidden page closes the stream.

const ALWAYS = ["daemon", "models", "queue", "profileChanged", "lease"];
const PAUSES = [1000, 2000, 4000, 5000]; // milliseconds before each retry
const UNSEEN = 5000; // milliseconds after which a hidden page closes the stream

/** @type {EventSource|null} */
let source = null;
let asked = "";
let tries = 0;
/** @type {number|undefined} */
let timer;
/** Kinds of events that the open page draws. @type {Signal<string[]>} */
export const drawn = signal([]);

function open() {
  clearTimeout(timer);
  source?.close();
  source = new EventSource(address(`api/events?kinds=${asked}`));
  source.onopen = () => {
    tries = 0;
    connection.value = "live";
    past.reload();
    get("api/access").then((told) => {
      mayChange.value = told.changes;
    }, () => {});
  };
  source.onmessage = (event) => take(event.data);
  source.onerror = () => {
    source?.close();
    if (connection.value !== "lost") lostAt.value = exactly();
    connection.value = "lost";
    clearTimeout(timer);
    timer = setTimeout(open, PAUSES[Math.min(tries, PAUSES.length - 1)]);
    tries += 1;
  };
}

function close() {
  clearTimeout(timer);
  source?.close();
  source = null;
  connection.value = "away";
}

/** Listen for as long as the page is open. */
export function connect() {
  effect(() => {
    const kinds = [...new Set([...ALWAYS, ...drawn.value])].sort().join(",");
    if (kinds === asked) return;
    asked = kinds;
    if (!document.hidden) open();
  });
  /** @type {number|undefined} */
  let leaving;
  document.addEventListener("visibilitychange", () => {
    clearTimeout(leaving);
    if (document.hidden) leaving = setTimeout(close, UNSEEN);
    else if (!source) open();
  });
  setInterval(() => {
    if (!document.hidden) now.value = exactly();
  }, 1000);
}
