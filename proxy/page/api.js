// @ts-check
// What the page asks of the daemon. All addresses are relative: a path before ours stays.

/** @param {string} path @returns {string} */
export const address = (path) => new URL(`../${path}`, document.baseURI).href;

/** A model's id in a path: each part by itself, as ids may have slashes. @param {string} id @returns {string} */
export function inPath(id) {
  const parts = id.split("/");
  // Browsers take such parts out of an address, however they are written: it would be another model's.
  if (parts.includes(".") || parts.includes("..")) throw new Refused(0, `${id} cannot be named in an address; give the model another id`);
  return parts.map(encodeURIComponent).join("/");
}

/** What the daemon said instead of doing it. */
export class Refused extends Error {
  /** @param {number} status @param {string} text */
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

/**
 * @param {string} path
 * @param {RequestInit} [options]
 * @returns {Promise<Response>}
 */
export async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(address(path), options);
  } catch (error) {
    if (/** @type {Error} */ (error).name === "AbortError") throw error;
    throw new Refused(0, "llamadoze does not answer");
  }
  if (!response.ok) throw new Refused(response.status, await reason(response));
  return response;
}

/** @param {Response} response */
async function reason(response) {
  const text = await response.text();
  try {
    return JSON.parse(text).error.message;
  } catch {
    return text.slice(0, 300) || `${response.status} ${response.statusText}`;
  }
}

/** @param {string} path @param {AbortSignal} [signal] @returns {Promise<any>} */
export async function get(path, signal) {
  return (await ask(path, { signal })).json();
}

/** @param {string} path @param {any} [body] @returns {Promise<any>} */
export async function post(path, body, method = "POST") {
  const options = body === undefined ? { method } : { method, body: JSON.stringify(body), headers: { "content-type": "application/json" } };
  const text = await (await ask(path, options)).text();
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
