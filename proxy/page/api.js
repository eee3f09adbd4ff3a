// @ts-check
// The page's requests to the daemon. All addresses are relative, so a path of a reverse proxy stays.

/** @param {string} path @returns {string} */
export const address = (path) => new URL(`../${path}`, document.baseURI).href;

/** A model's id in a path. Each part is escaped by itself, because ids may contain slashes. @param {string} id @returns {string} */
export function inPath(id) {
  const parts = id.split("/");
  // Browsers remove such parts from an address, even escaped. The address would name another model.
  if (parts.includes(".") || parts.includes("..")) throw new Refused(0, `${id} cannot be part of an address; give the model another id`);
  return parts.map(encodeURIComponent).join("/");
}

/** The daemon has refused a request, failed, or not answered. */
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
