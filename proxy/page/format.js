// @ts-check
// Numbers, times and states as operators read them. Pure functions.

/** @typedef {"stopped"|"queued"|"starting"|"ready"|"sleepPending"|"asleep"|"waking"|"stopping"|"failed"} State */

/** The page's word for each state. @type {Record<string, string>} */
export const WORDS = {
  ready: "awake",
  asleep: "asleep",
  queued: "queued",
  starting: "starting",
  waking: "waking",
  sleepPending: "falling asleep",
  stopping: "stopping",
  failed: "failed",
  stopped: "stopped",
};

/** The order in which models are shown: those that use memory first. @type {State[]} */
export const ORDER = ["ready", "waking", "starting", "queued", "sleepPending", "stopping", "failed", "asleep", "stopped"];

/** What made a model change its state. @type {Record<string, string>} */
export const WHY = {
  request: "a request asked for it",
  operator: "an operator asked for it",
  lease: "a client asked for a lease on it",
  preload: "llamadoze loads it when it starts (preload)",
  revival: "it had failed, and llamadoze restarts it (watch)",
  resume: "it was awake before the pause",
  room: "it made room",
  idle: "it was idle",
  budget: "the sleeping models were above a limit",
  yield: "other programs needed the GPU",
  pause: "llamadoze was paused",
  reload: "its settings have changed",
  allocation: "its allocation ended",
  drainTimeout: "its requests made others wait too long",
  failure: "something failed",
  itself: "by itself",
};

/** @param {number} value seconds @returns {string} 0.35 s, 12 s, 4 min, 2 h 05 min */
export function duration(value) {
  if (!Number.isFinite(value)) return "–";
  const s = Math.max(0, value);
  if (s < 0.0005) return "0 s";
  if (s < 1) return `${Math.round(s * 1000)} ms`;
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 90) return `${Math.round(s)} s`;
  if (s < 3600) return `${Math.round(s / 60)} min`;
  const minutes = Math.round(s / 60);
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

/** @param {number} value seconds @returns {string} whole seconds, for durations that count up or down */
export function counting(value) {
  const s = Math.max(0, Math.round(value));
  return s < 90 ? `${s} s` : duration(s);
}

/** @param {number} count bytes @returns {string} */
export function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = Math.abs(count);
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const digits = unit >= 3 && value < 100 ? 1 : 0;
  return `${count < 0 ? "−" : ""}${value.toFixed(digits)} ${units[unit]}`;
}

/** @param {number} at seconds since 1970 @returns {string} 14:02:11 */
export function clock(at) {
  return new Date(at * 1000).toLocaleTimeString([], { hour12: false });
}

/** @param {number} at seconds since 1970 @returns {string} with the date, if that is not today */
export function moment(at) {
  const date = new Date(at * 1000);
  const today = new Date().toDateString() === date.toDateString();
  const time = clock(at);
  return today ? time : `${date.toLocaleDateString([], { month: "short", day: "numeric" })} ${time}`;
}

/** @param {number} count @param {string} one @param {string} [many] @returns {string} */
export function counted(count, one, many = `${one}s`) {
  return `${count} ${count === 1 ? one : many}`;
}

/** @param {string[]} names @returns {string} a, b and c */
export function listed(names) {
  return names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names[names.length - 1]}`;
}

/** @param {number|null|undefined} value @param {number} [digits] @returns {string} */
export function number(value, digits = 0) {
  if (value === null || value === undefined || value < 0) return "–";
  return value.toLocaleString([], { maximumFractionDigits: digits });
}
