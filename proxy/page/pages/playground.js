// @ts-check
// Playground: a chat with one model or with two side by side, embeddings, rerank and speech.
import { useEffect, useRef, useState } from "../vendor/hooks.mjs";
import { signal } from "../vendor/signals.mjs";
import { Refused, ask, post } from "../api.js";
import { ORDER, counted, duration, number } from "../format.js";
import { html } from "../html.js";
import { Action, attempt, kept, say } from "../parts.js";
import { models, now, queue } from "../store.js";
import { readyIn, reason, standing } from "../words.js";

export const kinds = /** @type {string[]} */ ([]);
export const title = "Playground";

/** @typedef {{role: string, content: any, reasoning?: string, shown?: string, failure?: string, facts?: string}} Message */

const tab = kept("playground.tab", "chat");
const left = kept("playground.model", "");
const right = kept("playground.second", "");
const system = kept("playground.system", "");
const temperature = kept("playground.temperature", "");
const LARGEST_IMAGE = 20 * 1024 * 1024;
const MOST_IMAGES = 5;
/** Chats stay while other pages are open. @type {Record<string, import("../vendor/signals.mjs").Signal<Message[]>>} */
const chats = { left: signal([]), right: signal([]) };

/** The HTML elements that an answer may contain. None loads anything, is a control, or looks like a part of the page. */
const TAGS = ["p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "strong", "b", "em", "i", "del", "s", "sub", "sup", "code", "pre", "blockquote", "ul", "ol", "li", "a", "table", "thead", "tbody", "tr", "th", "td"];

/** @type {Promise<(text: string) => string>|null} */
let markdown = null;

/** Markdown to HTML without active content; loaded with the first answer. */
function rendering() {
  markdown ??= Promise.all([import("../vendor/marked.mjs"), import("../vendor/purify.js")]).then(([{ marked }]) => {
    const purify = /** @type {any} */ (globalThis).DOMPurify;
    purify.addHook("afterSanitizeAttributes", (/** @type {Element} */ node) => {
      if (node.tagName === "A") {
        node.setAttribute("target", "_blank");
        node.setAttribute("rel", "noreferrer noopener");
      }
    });
    return (text) => purify.sanitize(marked.parse(text, { async: false }), { ALLOWED_TAGS: TAGS, ALLOWED_ATTR: ["href", "title", "start", "align"], ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i });
  });
  return markdown;
}

/** @param {{text: string}} props */
function Markdown({ text }) {
  const [render, setRender] = useState(/** @type {any} */ (null));
  useEffect(() => {
    rendering().then((found) => setRender(() => found), () => {});
  }, []);
  if (!render) return html`<pre>${text}</pre>`;
  return html`<div class="markdown" dangerouslySetInnerHTML=${{ __html: render(text) }}></div>`;
}

/** The chosen model if it exists, else the best one that has not failed: awake models first. @param {string} id */
function chosen(id) {
  if (models.value.has(id)) return id;
  const all = [...models.value.values()].sort((a, b) => ORDER.indexOf(a.state) - ORDER.indexOf(b.state) || a.id.localeCompare(b.id));
  return (all.find((one) => one.state !== "failed") ?? all[0])?.id ?? "";
}

/** @param {{value: string, onChange: (id: string) => void, label: string, none?: string}} props */
function Choice({ value, onChange, label, none }) {
  const all = [...models.value.keys()].sort();
  return html`<label>${label} <select value=${value} onChange=${(/** @type {any} */ event) => onChange(event.target.value)}>
    ${none !== undefined && html`<option value="">${none}</option>`}${all.map((id) => html`<option value=${id}>${id}</option>`)}</select></label>`;
}

/** How far a model is with its start or wake, while the user waits for the first token. @param {{id: string}} props */
function Coming({ id }) {
  const model = models.value.get(id);
  const waiting = queue.value.find((one) => one.model === id);
  if (!model || model.state === "ready") return html`<p class="quiet" role="status">${id} processes the request</p>`;
  return html`<p class="quiet" role="status">${id} is ${model.state === "stopped" ? "not loaded yet" : standing(model, now.value) || model.state}${waiting ? `; ready ${readyIn(waiting, now.value)}; ${reason(waiting, now.value)}` : ""}</p>`;
}

/** Events of a stream. @param {Response} response */
async function* events(response) {
  const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
  const decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + decoder.decode(value, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) {
      const text = line.startsWith("data:") ? line.slice(5).trim() : "";
      if (text && text !== "[DONE]") yield JSON.parse(text);
    }
  }
}

/** Send a chat to a model, and show the answer as it arrives. */
async function answer(/** @type {string} */ side, /** @type {string} */ id, /** @type {AbortSignal} */ abort) {
  const chat = chats[side];
  const began = performance.now();
  const messages = chat.value.filter((one) => !one.failure).map(({ role, content }) => ({ role, content }));
  if (system.value) messages.unshift({ role: "system", content: system.value });
  /** @type {Message} */
  let current = { role: "assistant", content: "", reasoning: "" };
  const show = (/** @type {Partial<Message>} */ more) => {
    const before = chat.value[chat.value.length - 1] === current ? chat.value.slice(0, -1) : chat.value;
    current = { ...current, ...more };
    chat.value = [...before, current];
  };
  let first = 0;
  let pieces = 0;
  let text = "";
  let thoughts = "";
  let drawing = false;
  // Once a frame: parsing Markdown for each token would slow down the speed that is measured.
  const draw = () => {
    if (drawing) return;
    drawing = true;
    requestAnimationFrame(() => {
      drawing = false;
      show({ content: text, reasoning: thoughts });
    });
  };
  try {
    const body = { model: id, messages, stream: true, stream_options: { include_usage: true }, ...(temperature.value === "" ? {} : { temperature: Number(temperature.value) }) };
    const response = await ask("v1/chat/completions", { method: "POST", signal: abort, body: JSON.stringify(body), headers: { "content-type": "application/json" } });
    let usage = null;
    let timings = null;
    for await (const event of events(response)) {
      if (event.error) throw new Refused(0, event.error.message);
      const delta = event.choices?.[0]?.delta ?? {};
      const more = delta.content ?? "";
      const thought = delta.reasoning_content ?? delta.reasoning ?? "";
      usage = event.usage ?? usage;
      timings = event.timings ?? timings;
      if (!more && !thought) continue;
      first ||= performance.now();
      pieces += 1;
      text += more;
      thoughts += thought;
      draw();
    }
    const seconds = (performance.now() - (first || began)) / 1000;
    const tokens = usage?.completion_tokens ?? pieces;
    const speed = timings?.predicted_per_second ?? tokens / Math.max(0.001, seconds);
    show({ content: text, reasoning: thoughts, facts: `${counted(tokens, "token")}, ${number(speed, 1)} tokens/s, first token after ${duration(((first || performance.now()) - began) / 1000)}` });
  } catch (error) {
    if (/** @type {Error} */ (error).name === "AbortError") show({ content: text, reasoning: thoughts, facts: "stopped" });
    else show({ failure: /** @type {Error} */ (error).message });
  }
}

/** @param {{side: string, id: string, busy: boolean}} props */
function Talk({ side, id, busy }) {
  const list = chats[side].value;
  const end = useRef(/** @type {HTMLElement|null} */ (null));
  useEffect(() => {
    end.current?.scrollIntoView({ block: "nearest" });
  }, [list]);
  return html`<section class="talk" aria-label="Chat with ${id}"><h2>${id}</h2>
    ${list.map((one) => html`<article class="message ${one.role}" aria-label=${one.role === "user" ? "You" : id}>
      ${one.reasoning && html`<details><summary>Reasoning</summary><pre>${one.reasoning}</pre></details>`}
      ${one.failure ? html`<p class="bad">${one.failure}</p>` : one.role === "user" ? html`<p class="said-by-you">${one.shown}</p>${images(one.content)}` : html`<${Markdown} text=${one.content}/>`}
      ${one.facts && html`<p class="quiet">${one.facts}</p>`}</article>`)}
    ${busy && list[list.length - 1]?.role === "user" && html`<${Coming} id=${id}/>`}<div ref=${end}></div></section>`;
}

/** @param {any} content */
const images = (content) => (Array.isArray(content) ? content.filter((one) => one.type === "image_url").map((one) => html`<img alt="An image that you sent" src=${one.image_url.url}/>`) : null);

function Chat() {
  const [text, setText] = useState("");
  const [pictures, setPictures] = useState(/** @type {string[]} */ ([]));
  const [abort, setAbort] = useState(/** @type {AbortController|null} */ (null));
  const id = chosen(left.value);
  const sides = /** @type {[string, string][]} */ ([["left", id], ...(right.value && models.value.has(right.value) ? [["right", right.value]] : [])]);
  const send = async () => {
    if (!text.trim() && !pictures.length) return;
    const content = pictures.length ? [{ type: "text", text }, ...pictures.map((url) => ({ type: "image_url", image_url: { url } }))] : text;
    const own = new AbortController();
    setAbort(own);
    for (const [side] of sides) chats[side].value = [...chats[side].value, { role: "user", content, shown: text }];
    setText("");
    setPictures([]);
    await Promise.all(sides.map(([side, model]) => answer(side, model, own.signal)));
    setAbort(null);
  };
  const add = async (/** @type {any} */ event) => {
    const files = [...event.target.files].slice(0, MOST_IMAGES - pictures.length);
    const good = files.filter((file) => file.size <= LARGEST_IMAGE);
    if (good.length < event.target.files.length) say(`At most ${MOST_IMAGES} images of 20 MiB each`, true);
    const read = (/** @type {File} */ file) => new Promise((resolve) => {
      const reader = new FileReader();
      reader.onload = () => resolve(reader.result);
      reader.readAsDataURL(file);
    });
    setPictures([...pictures, ...(await Promise.all(good.map(read)))]);
    event.target.value = "";
  };
  const key = (/** @type {KeyboardEvent} */ event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      if (!abort) send();
    }
  };
  return html`<div class="row filters"><${Choice} label="Model" value=${id} onChange=${(/** @type {string} */ value) => { left.value = value; }}/>
      <${Choice} label="Compare with" none="none" value=${right.value} onChange=${(/** @type {string} */ value) => { right.value = value; }}/>
      <label>Temperature <input type="number" min="0" max="2" step="0.1" placeholder="default" value=${temperature.value} onInput=${(/** @type {any} */ event) => { temperature.value = event.target.value; }}/></label>
      <label class="wide">System prompt <input value=${system.value} onInput=${(/** @type {any} */ event) => { system.value = event.target.value; }}/></label>
      <button type="button" onClick=${() => { for (const side of ["left", "right"]) chats[side].value = []; }}>New chat</button></div>
    <div class="talks">${sides.map(([side, model]) => html`<${Talk} key=${side} side=${side} id=${model} busy=${abort !== null}/>`)}</div>
    <form class="composer" onSubmit=${(/** @type {Event} */ event) => { event.preventDefault(); send(); }}>
      ${pictures.map((url, place) => html`<button type="button" class="thumb" aria-label="Remove image ${place + 1}" onClick=${() => setPictures(pictures.filter((_, other) => other !== place))}><img alt="" src=${url}/></button>`)}
      <textarea rows="3" aria-label="Message" placeholder="Enter sends, Shift+Enter begins a new line" value=${text} onInput=${(/** @type {any} */ event) => setText(event.target.value)} onKeyDown=${key}></textarea>
      <div class="row"><label class="button">Image <input type="file" accept="image/*" multiple class="hidden" onChange=${add}/></label>
        ${abort ? html`<button type="button" class="danger" onClick=${() => abort.abort()}>Stop</button>` : html`<button type="submit" class="primary" disabled=${!id}>Send</button>`}</div></form>`;
}

/** @param {number[]} a @param {number[]} b */
function likeness(a, b) {
  let dot = 0;
  let one = 0;
  let other = 0;
  a.forEach((value, place) => {
    dot += value * b[place];
    one += value * value;
    other += b[place] * b[place];
  });
  return dot / Math.sqrt(one * other || 1);
}

/** A form with a model and some text. @param {{label: string, rows?: number, button: string, onRun: (model: string, text: string, more: string) => Promise<any>, more?: string}} props */
function Form({ label, rows = 4, button, onRun, more }) {
  const [id, setId] = useState(chosen(left.value));
  const [text, setText] = useState("");
  const [other, setOther] = useState("");
  return html`<form class="asking" onSubmit=${(/** @type {Event} */ event) => event.preventDefault()}><${Choice} label="Model" value=${id} onChange=${setId}/>
    ${more && html`<label class="wide">${more} <input value=${other} onInput=${(/** @type {any} */ event) => setOther(event.target.value)}/></label>`}
    <label class="wide stack">${label} <textarea rows=${rows} value=${text} onInput=${(/** @type {any} */ event) => setText(event.target.value)}></textarea></label>
    <div class="row"><${Action} label=${button} onClick=${() => onRun(id, text, other)}/><${Progress} id=${id}/></div></form>`;
}

/** @param {{id: string}} props */
function Progress({ id }) {
  const model = models.value.get(id);
  return model && ["queued", "starting", "waking"].includes(model.state) ? html`<span class="quiet" role="status">${id} is ${model.state}, ${standing(model, now.value)}</span>` : null;
}

function Embeddings() {
  const [found, setFound] = useState(/** @type {any} */ (null));
  const run = async (/** @type {string} */ model, /** @type {string} */ text) => {
    const input = text.split("\n").filter((line) => line.trim());
    const told = await attempt("", () => post("v1/embeddings", { model, input }));
    if (told) setFound({ input, vectors: told.data.map((/** @type {any} */ one) => one.embedding), usage: told.usage });
  };
  return html`<${Form} label="Texts, one on each line" button="Embed" onRun=${run}/>
    ${found && html`<p>${counted(found.vectors.length, "vector")} of ${found.vectors[0]?.length ?? 0} numbers${found.usage ? `, ${counted(found.usage.total_tokens ?? found.usage.prompt_tokens, "token")}` : ""}. Similarity of the texts:</p>
      <div class="scroll" tabindex="0" role="group" aria-label="Table, scrolls sideways"><table><thead><tr><th scope="col"></th>${found.input.map((/** @type {string} */ text) => html`<th scope="col">${text.slice(0, 24)}</th>`)}</tr></thead>
      <tbody>${found.vectors.map((/** @type {number[]} */ one, /** @type {number} */ place) => html`<tr><th scope="row">${found.input[place].slice(0, 40)}</th>${found.vectors.map((/** @type {number[]} */ other) => html`<td>${likeness(one, other).toFixed(3)}</td>`)}</tr>`)}</tbody></table></div>`}`;
}

function Rerank() {
  const [found, setFound] = useState(/** @type {any} */ (null));
  const run = async (/** @type {string} */ model, /** @type {string} */ text, /** @type {string} */ query) => {
    const documents = text.split("\n").filter((line) => line.trim());
    const told = await attempt("", () => post("v1/rerank", { model, query, documents }));
    if (told) setFound({ documents, results: [...told.results].sort((a, b) => b.relevance_score - a.relevance_score) });
  };
  return html`<${Form} more="Query" label="Documents, one on each line" button="Rank" onRun=${run}/>
    ${found && html`<table><thead><tr><th scope="col">Score</th><th scope="col">Document</th></tr></thead><tbody>${found.results.map((/** @type {any} */ one) => html`<tr><td>${one.relevance_score.toFixed(4)}</td><td>${found.documents[one.index]}</td></tr>`)}</tbody></table>`}`;
}

function Speech() {
  const [source, setSource] = useState("");
  const run = async (/** @type {string} */ model, /** @type {string} */ input, /** @type {string} */ voice) => {
    const body = JSON.stringify({ model, input, voice: voice || "alloy" });
    const response = await attempt("", () => ask("v1/audio/speech", { method: "POST", body, headers: { "content-type": "application/json" } }));
    if (response) setSource(URL.createObjectURL(await response.blob()));
  };
  return html`<${Form} more="Voice" label="Text" button="Speak" onRun=${run}/>${source && html`<audio controls src=${source}></audio> <a href=${source} download="speech">Save</a>`}`;
}

const TABS = /** @type {[string, string, () => any][]} */ ([["chat", "Chat", Chat], ["embeddings", "Embeddings", Embeddings], ["rerank", "Rerank", Rerank], ["speech", "Speech", Speech]]);

export function Page() {
  const shown = TABS.find(([name]) => name === tab.value) ?? TABS[0];
  return html`<div class="row" role="toolbar" aria-label="What to try">${TABS.map(([name, text]) => html`<button type="button" aria-pressed=${name === shown[0]} onClick=${() => { tab.value = name; }}>${text}</button>`)}</div><${shown[2]}/>`;
}
