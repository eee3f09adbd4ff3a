// @ts-check
// Sentences about models, the queue and decisions. Pure functions.
import { WHY, WORDS, bytes, counted, counting, duration, listed } from "./format.js";

/**
 * @typedef {import("./store.js").Model} Model
 * @typedef {import("./store.js").Waiting} Waiting
 * @typedef {import("./timeline/past.js").Span} Span
 * @typedef {import("./timeline/past.js").Decision} Decision
 * @typedef {import("./timeline/past.js").Proof} Proof
 */

/** Seconds that remain of a duration that the daemon told earlier. @param {number|null} told @param {number|undefined} at @param {number} now */
export function left(told, at, now) {
  return told === null || told === undefined ? null : Math.max(0, told - Math.max(0, now - (at ?? now)));
}

/** @param {Model} model @param {number} now @returns {string} its use, or how long it has been in its state */
export function standing(model, now) {
  const since = counting(now - model.since);
  if (model.state === "ready") {
    if (model.in_flight) return counted(model.in_flight, "request");
    return `idle for ${counting(now - Math.max(model.idleSince, model.readySince))}`;
  }
  const ready = left(model.readyIn, model.at, now);
  if (model.state === "waking" || model.state === "starting") {
    return ready === null ? `for ${since}` : `ready in ≈ ${counting(ready)}`;
  }
  if (model.state === "queued") return [model.queue ?? `for ${since}`, ready === null ? "" : `ready in ≈ ${counting(ready)}`].filter(Boolean).join("; ");
  if (model.state === "failed") {
    const retry = left(model.retryIn, model.at, now) ?? 0;
    return retry > 0 ? `may start again in ${counting(retry)}` : "the next request starts it again";
  }
  return model.state === "stopped" ? "" : `for ${since}`;
}

/** @param {Model} model @returns {string} what it was started or woken for */
export function forWhom(model) {
  const asker = model.for;
  if (!asker) return "";
  if (asker.why !== "request") return WHY[asker.why] ?? asker.why;
  return `requested by ${[asker.key, asker.client].filter(Boolean).join(", ") || "a client"}`;
}

/** @param {Waiting} one @param {number} now @param {string[]} [ahead] models whose turns come earlier @returns {string} why the request waits, and until when */
export function reason(one, now, ahead = []) {
  if (one.state === "queued" || one.state === "starting" || one.state === "waking") return `${one.model} is ${WORDS[one.state]}`;
  if (!one.behind.length) return one.state === "sleepPending" ? `${one.model} falls asleep first` : `waits for its turn${ahead.length ? `, behind ${listed(ahead)}` : ""}`;
  const busy = one.behind.filter((rival) => rival.in_flight);
  if (!busy.length) return `${listed(one.behind.map((rival) => rival.model))} ${one.behind.length > 1 ? "make" : "makes"} room`;
  const users = listed(busy.map((rival) => `${counted(rival.in_flight, "request")} of ${rival.model}`));
  const closes = left(one.closesIn, one.at, now);
  const names = listed(busy.map((rival) => rival.model));
  const closing = closes === null ? "" : closes > 0 ? `; ${names} ${busy.length > 1 ? "close" : "closes"} to new requests in ${counting(closes)}` : `; ${names} ${busy.length > 1 ? "are" : "is"} closed to new requests`;
  const others = ahead.filter((name) => !one.behind.some((rival) => rival.model === name));
  return `waits for ${users} to end${closing}${others.length ? `; then ${listed(others)} ${others.length > 1 ? "have their turns" : "has its turn"} first` : ""}`;
}

/** @param {Waiting} one @param {number} now @returns {string} */
export function readyIn(one, now) {
  const ready = left(one.readyIn, one.at, now);
  if (ready === null) return "time not known";
  const isOpen = one.place > 1 || one.behind.some((rival) => rival.in_flight);
  if (isOpen && ready < 0.5) return one.place > 1 ? "after the models ahead" : "when the running requests end";
  return `${isOpen ? "in at least" : "≈"} ${counting(ready)}${one.readyInMeasured ? "" : " (not measured yet)"}`;
}

/** Causes that are no client's doing. */
const OF_NOBODY = ["failure", "drainTimeout", "itself"];

/** @param {string} why @param {Decision|undefined} decision @param {import("./timeline/past.js").Cause} cause */
export function cause(why, cause, decision) {
  if (why === "room") return `it made room for ${cause.model}`;
  /** @type {{client?: string, key?: string}} */
  const asker = OF_NOBODY.includes(why) ? {} : decision ?? cause;
  const by = [asker.client && `from ${asker.client}`, asker.key && `key ${asker.key}`].filter(Boolean).join(", ");
  return `${WHY[why] ?? why}${by ? ` (${by})` : ""}`;
}

/** @param {Proof|null|undefined} proof @returns {string[]} what was proved, one fact in each string */
export function proved(proof) {
  if (!proof) return [];
  const found = Object.entries(proof.memory ?? {}).map(([kind, one]) => {
    const name = kind === "gpu" ? "GPU" : kind;
    return `freed ${bytes(one.freed)} of ${bytes(one.awake)} ${name} memory, ${bytes(one.left)} left`;
  });
  if (proof.asked) found.push("the model server confirmed it");
  if (proof.token) found.push("the test token matched the one from before the sleep");
  return found;
}

/** @param {Span} span @param {number} now @returns {string} */
export function lasted(span, now) {
  return span.end === null ? `for ${duration(now - span.begin)} so far` : `for ${duration(span.end - span.begin)}`;
}
