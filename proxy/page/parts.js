// @ts-check
// Components that several pages share.
import { useEffect, useRef, useState } from "./vendor/hooks.mjs";
import { signal } from "./vendor/signals.mjs";
import { Refused } from "./api.js";
import { WORDS } from "./format.js";
import { html } from "./html.js";
import { mayChange } from "./store.js";

/** @param {{state: string}} props */
export const State = ({ state }) => html`<span class="state ${state}">${WORDS[state] ?? state}</span>`;

/** The last message about an action; screen readers read it aloud. */
const said = signal(/** @type {{text: string, bad: boolean}|null} */ (null));
/** @type {number|undefined} */
let fading;

/** @param {string} text @param {boolean} [bad] */
export function say(text, bad = false) {
  said.value = { text, bad };
  clearTimeout(fading);
  fading = setTimeout(() => {
    said.value = null;
  }, bad ? 12000 : 5000);
}

export const Said = () =>
  html`<div class="said" role="status" aria-live="polite">${said.value && html`<p class=${said.value.bad ? "bad" : ""}>${said.value.text}</p>`}</div>`;

/** Run an action, and show `done` or its error. @param {string} done nothing is shown if it is empty @param {() => Promise<any>} action */
export async function attempt(done, action) {
  try {
    const result = await action();
    if (done) say(done);
    return result;
  } catch (error) {
    say(error instanceof Refused ? error.message : String(error), true);
    return undefined;
  }
}

/**
 * A button that is marked as busy while its action runs.
 * @param {{label: string, name?: string, onClick: () => Promise<any>|void, kind?: string, disabled?: boolean, reads?: boolean}} props
 */
export function Action({ label, name, onClick, kind = "", disabled = false, reads = false }) {
  const [busy, setBusy] = useState(false);
  const there = useRef(true);
  useEffect(() => () => {
    there.current = false;
  }, []);
  if (!reads && !mayChange.value) return null; // the daemon would refuse the action
  const click = async () => {
    setBusy(true);
    try {
      await onClick();
    } finally {
      if (there.current) setBusy(false);
    }
  };
  return html`<button type="button" class=${kind} disabled=${disabled} aria-disabled=${busy} aria-busy=${busy} aria-label=${name ?? label} onClick=${() => busy || click()}>${label}</button>`;
}

/** The open question; its action waits for the answer. */
const question = signal(/** @type {{text: string, yes: string, answer: (yes: boolean) => void}|null} */ (null));

/** @param {string} text @param {string} yes the label of the button that confirms @returns {Promise<boolean>} */
export function confirmed(text, yes) {
  return new Promise((resolve) => {
    question.value = { text, yes, answer: resolve };
  });
}

export function Question() {
  const box = useRef(/** @type {HTMLDialogElement|null} */ (null));
  const asked = question.value;
  useEffect(() => {
    if (asked && !box.current?.open) box.current?.showModal();
  }, [asked]);
  if (!asked) return null;
  const answer = (/** @type {boolean} */ yes) => {
    box.current?.close(); // this returns the focus
    question.value = null;
    asked.answer(yes);
  };
  return html`<dialog ref=${box} aria-labelledby="question" onCancel=${() => answer(false)}>
    <p id="question">${asked.text}</p>
    <div class="row"><button type="button" onClick=${() => answer(false)}>Cancel</button>
    <button type="button" class="danger" onClick=${() => answer(true)}>${asked.yes}</button></div></dialog>`;
}

/**
 * A dialog over the page. Its button, Escape, or a click beside it closes it.
 * @param {{title: string, onClose: () => void, children?: any}} props
 */
export function Dialog({ title, onClose, children }) {
  const box = useRef(/** @type {HTMLDialogElement|null} */ (null));
  useEffect(() => {
    if (!box.current?.open) box.current?.showModal();
  }, []);
  return html`<dialog ref=${box} class="large" aria-label=${title} onClose=${onClose} onClick=${(/** @type {any} */ event) => event.target === box.current && box.current?.close()}>
    <header class="row"><h2>${title}</h2><button type="button" class="end" onClick=${() => box.current?.close()}>Close</button></header>
    <div class="inside">${children}</div></dialog>`;
}

/** A model's name, as a link to its page. @param {{id: string}} props */
export const Model = ({ id }) => html`<a class="model" href="#models/${encodeURIComponent(id)}"><bdi>${id}</bdi></a>`;

/** Copy a text to the clipboard. @param {string} text */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    say("Copied");
  } catch {
    say("Browsers allow a page to copy only over HTTPS, or on localhost", true);
  }
}

/** A value that this browser remembers. @param {string} name @param {any} usual its default */
export function kept(name, usual) {
  let first = usual;
  try {
    first = JSON.parse(localStorage.getItem(`llamadoze.${name}`) ?? "null") ?? usual;
  } catch {
    // The browser may forbid it. Then nothing is remembered.
  }
  const value = signal(first);
  value.subscribe((now) => {
    try {
      localStorage.setItem(`llamadoze.${name}`, JSON.stringify(now));
    } catch {
      // As above.
    }
  });
  return value;
}
