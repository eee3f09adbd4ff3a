// @ts-check
import { html } from "../html.js";
export const kinds = /** @type {string[]} */ ([]);
export const title = "playground";
export const Page = () => html`<p></p>`;
