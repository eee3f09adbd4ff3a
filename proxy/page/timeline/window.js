// @ts-check
// The part of the past that is shown: its width, and whether it follows the present. Pure functions.

/** @typedef {{width: number, end: number|null}} Window seconds; an end of null is the present */

export const NARROWEST = 60;
export const WIDEST = 86400;
/** Widths that a key or a button steps through, in seconds. */
export const WIDTHS = [60, 300, 900, 3600, 4 * 3600, 12 * 3600, 86400];

/** @param {number} value @param {number} least @param {number} most */
const within = (value, least, most) => Math.min(most, Math.max(least, value));

/** @param {Window} shown @param {number} now @returns {[number, number]} its beginning and its end */
export function bounds(shown, now) {
  const end = shown.end ?? now;
  return [end - shown.width, end];
}

/**
 * Make the window wider or narrower. A given moment keeps its place in the picture.
 * @param {Window} shown @param {number} factor @param {number} around @param {number} now
 * @returns {Window}
 */
export function zoomed(shown, factor, around, now) {
  const width = within(shown.width * factor, NARROWEST, WIDEST);
  if (shown.end === null) return { width, end: null };
  const part = (shown.end - around) / shown.width;
  return moved({ width, end: around + part * width }, 0, now);
}

/** @param {Window} shown @param {number} seconds @param {number} now @returns {Window} */
export function moved(shown, seconds, now) {
  const end = (shown.end ?? now) + seconds;
  if (end >= now) return { ...shown, end: null };
  return { ...shown, end: Math.max(end, now - WIDEST + shown.width / 2) };
}

/** @param {Window} shown @param {number} step 1 is wider @returns {Window} the next usual width */
export function stepped(shown, step) {
  const wider = WIDTHS.find((width) => width > shown.width * 1.01);
  const narrower = [...WIDTHS].reverse().find((width) => width < shown.width * 0.99);
  return { ...shown, width: (step > 0 ? wider : narrower) ?? shown.width };
}

const STEPS = [1, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600];

/**
 * @param {number} from @param {number} to @param {number} most how many fit
 * @returns {number[]} moments to show on the axis
 */
export function ticks(from, to, most) {
  const step = STEPS.find((one) => (to - from) / one <= most) ?? 43200;
  const zone = new Date(from * 1000).getTimezoneOffset() * 60;
  const first = Math.ceil((from - zone) / step) * step + zone;
  const found = [];
  for (let at = first; at <= to; at += step) found.push(at);
  return found;
}
