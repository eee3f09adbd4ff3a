// @ts-check
// Templates: htm with Preact, the one place where both meet.
import { h } from "./vendor/preact.mjs";
import htm from "./vendor/htm.mjs";

/** @type {(strings: TemplateStringsArray, ...values: any[]) => any} */
export const html = /** @type {any} */ (htm).bind(h);
