// @ts-check
// The past: spans, decisions, uses and memory samples that the daemon has told.
// A change of a model replaces its lists, so that only its row is drawn again.
import { signal } from "../vendor/signals.mjs";
import { get } from "../api.js";

/**
 * @typedef {{name: string, took: number}} Step
 * @typedef {{why: string, text?: string, model?: string, client?: string, key?: string, decision?: number}} Cause
 * @typedef {{awake: number, freed: number, left: number, cycle: number, trend: number, growth: number}} Amount
 * @typedef {{asked: boolean, token?: boolean, memory?: Record<string, Amount>}} Proof
 * @typedef {{id: number, model: string, state: string, begin: number, end: number|null, cause: Cause,
 *   gpus: string[], steps?: Step[], proof?: Proof, saved?: number, failure?: string}} Span
 * @typedef {{model: string, state: string, because: string, to_rest: number, to_return: number,
 *   idle: number, took?: number, proved?: Proof|null}} Victim
 * @typedef {{id: number, at: number, model: string, why: string, request: string, client: string,
 *   key: string, waited: number, waiting: number, rule: string, victims: Victim[], gpus: string[],
 *   took?: number, ready?: number|null, proved?: Proof|null}} Decision
 * @typedef {{id: number, model: string, begin: number, end: number, count: number}} Use
 * @typedef {{at: number, devices: import("../store.js").Device[]}} Sample
 * @typedef {{spans: Span[], busy: Use[], waits: Use[]}} Row
 */

/** By model. @type {import("../vendor/signals.mjs").Signal<Map<string, Row>>} */
export const rows = signal(new Map());
/** By id. @type {import("../vendor/signals.mjs").Signal<Map<number, Decision>>} */
export const decisions = signal(new Map());
/** @type {import("../vendor/signals.mjs").Signal<Sample[]>} */
export const samples = signal([]);

/** The page knows everything since this moment, in seconds since 1970. */
let knownSince = Infinity;
/** The earliest moment that a page wants to show; Infinity is none. */
let wantedSince = Infinity;
/** @type {Promise<void>|null} */
let loading = null;

/** @returns {Row} */
const empty = () => ({ spans: [], busy: [], waits: [] });

/** @param {{id: number}[]} list @param {any} one @returns {any[]} a new list with it */
function put(list, one) {
  for (let at = list.length - 1; at >= 0 && at >= list.length - 50; at -= 1) {
    if (list[at].id === one.id) return [...list.slice(0, at), one, ...list.slice(at + 1)];
  }
  const at = list.findIndex((other) => other.id === one.id);
  return at < 0 ? [...list, one] : [...list.slice(0, at), one, ...list.slice(at + 1)];
}

/** What the stream told during a reload. It may be newer than the answer. @type {any[]} */
let meanwhile = [];

/** @param {any} told rows that are new or have changed */
export function heard(told) {
  if (loading) meanwhile.push(told);
  const known = new Map(rows.value);
  for (const kind of /** @type {("spans"|"busy"|"waits")[]} */ (["spans", "busy", "waits"])) {
    for (const one of told[kind] ?? []) {
      const row = known.get(one.model) ?? empty();
      known.set(one.model, { ...row, [kind]: put(row[kind], one) });
    }
  }
  rows.value = known;
  if (told.decisions?.length) {
    const all = new Map(decisions.value);
    for (const one of told.decisions) all.set(one.id, one);
    decisions.value = all;
  }
}

/** @param {Sample} sample */
export function sampled(sample) {
  const list = samples.value;
  const last = list[list.length - 1];
  if (last && sample.at <= last.at) return;
  samples.value = [...list.slice(-8000), sample];
}

/** @param {any} told everything since a moment */
function replace(told) {
  /** @type {Map<string, Row>} */
  const known = new Map();
  for (const kind of /** @type {("spans"|"busy"|"waits")[]} */ (["spans", "busy", "waits"])) {
    for (const one of told[kind]) {
      const row = known.get(one.model) ?? empty();
      row[kind].push(one);
      known.set(one.model, row);
    }
  }
  rows.value = known;
  decisions.value = new Map(told.decisions.map((/** @type {Decision} */ one) => [one.id, one]));
  samples.value = told.memory;
  knownSince = told.since;
}

/** Load everything since a moment, now and each time that the stream was lost. @param {number} since */
export async function want(since) {
  wantedSince = Math.min(wantedSince, since);
  if (since < knownSince) await reload();
}

/** Load everything again: the page may have missed events while the stream was closed. */
export async function reload() {
  if (wantedSince === Infinity) return;
  while (loading) await loading;
  loading = (async () => {
    try {
      replace(await get(`api/timeline?since=${wantedSince}`));
      const later = meanwhile;
      meanwhile = [];
      loading = null;
      for (const told of later) heard(told);
    } catch {
      // The stream notices that the daemon does not answer, and loads again when it is back.
    }
  })();
  await loading;
  loading = null;
  meanwhile = [];
}
