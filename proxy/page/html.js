// @ts-check
// Templates: htm bound to Preact. No other module imports both.
import { h } from "./vendor/preact.mjs";
import htm from "./vendor/htm.mjs";

/** @type {(strings: TemplateStringsArray, ...values: any[]) => any} */
export const html = /** @type {any} */ (htm).bind(h);
