// @ts-check
// The frame: it opens the pages, and shows the header that all of them share.
import { render } from "./vendor/preact.mjs";
import { useEffect, useState } from "./vendor/hooks.mjs";
import { effect, signal } from "./vendor/signals.mjs";
import { post } from "./api.js";
import { counted, counting } from "./format.js";
import { html } from "./html.js";
import { Action, Question, Said, attempt, confirmed, kept } from "./parts.js";
import { awake, connect, connection, daemon, drawn, lostAt, models, now, queue } from "./store.js";
import * as nowPage from "./pages/now.js";

/** @typedef {{Page: any, kinds: string[], title: string}} PageModule */

/** Pages by their names in the address. Each is loaded when the user opens it. @type {[string, string, () => Promise<PageModule>][]} */
const PAGES = [
  ["now", "Now", async () => nowPage],
  ["timeline", "Timeline", () => import("./pages/timeline.js")],
  ["sleep", "Sleep", () => import("./pages/sleep.js")],
  ["requests", "Requests", () => import("./pages/requests.js")],
  ["models", "Models", () => import("./pages/models.js")],
  ["logs", "Logs", () => import("./pages/logs.js")],
  ["machine", "Machine", () => import("./pages/machine.js")],
  ["config", "Configuration", () => import("./pages/config.js")],
  ["playground", "Playground", () => import("./pages/playground.js")],
];

/** @returns {{name: string, rest: string}} */
function parsed() {
  const [name, ...rest] = location.hash.replace(/^#\/?/, "").split("/");
  try {
    return { name: name || "now", rest: rest.map(decodeURIComponent).join("/") };
  } catch {
    return { name: name || "now", rest: rest.join("/") }; // the page does not write such addresses
  }
}

const route = signal(parsed());
addEventListener("hashchange", () => {
  route.value = parsed();
});

const scheme = kept("scheme", "system");
effect(() => {
  document.documentElement.style.colorScheme = scheme.value === "system" ? "light dark" : scheme.value;
});

// The title shows the most important state, for users who look at another tab.
effect(() => {
  if (connection.value === "away") {
    document.title = "llamadoze";
    return;
  }
  const serving = awake.value.map((one) => one.id).join(", ");
  const failed = [...models.value.values()].filter((one) => one.state === "failed").length;
  const sign = connection.value !== "live" ? "○" : failed ? "▲" : queue.value.length ? "◐" : "●";
  document.title = `${sign} ${serving || "no model awake"}${queue.value.length ? `, ${queue.value.length} waiting` : ""} – llamadoze`;
});

function Connection() {
  const live = connection.value === "live";
  const text = live ? "Live" : connection.value === "lost" ? "No answer, retrying" : "Connecting";
  return html`<span class="connection is-${connection.value}" role="status">${text}</span>`;
}

async function pause() {
  const users = [...models.value.values()].reduce((sum, one) => sum + one.in_flight, 0);
  const text = `Pause llamadoze? ${users ? `llamadoze first lets ${counted(users, "request")} end. ` : ""}Then all models sleep or stop, and requests wait until you resume.`;
  if (await confirmed(text, "Pause")) await attempt("Paused: all models sleep or are stopped", () => post("api/pause"));
}

function Controls() {
  const told = daemon.value;
  if (!told) return null;
  return html`${told.profiles.length > 0 && html`<label>Profile <select value=${told.profile ?? ""} onChange=${(/** @type {any} */ event) => attempt("", () => post("api/profiles/active", { name: event.target.value || null }, "PUT"))}>
      <option value="">none</option>${told.profiles.map((one) => html`<option value=${one}>${one}</option>`)}</select></label>`}
    ${told.paused
      ? html`<${Action} label="Resume" kind="warn" onClick=${() => attempt("Resumed", () => post("api/resume"))}/>`
      : html`<${Action} label="Pause" onClick=${pause}/>`}`;
}

const SCHEMES = /** @type {Record<string, string>} */ ({ system: "Colours: system default", light: "Colours: light", dark: "Colours: dark" });

function Head() {
  const next = { system: "light", light: "dark", dark: "system" };
  return html`<header class="frame"><a class="skip" href="#main" onClick=${(/** @type {Event} */ event) => { event.preventDefault(); document.getElementById("main")?.focus(); }}>Skip to content</a>
    <a class="brand" href="#now">llamadoze</a>
    <nav aria-label="Pages"><ul role="list">${PAGES.map(([name, text]) => html`<li key=${name}><a href="#${name}" aria-current=${route.value.name === name ? "page" : undefined}>${text}</a></li>`)}</ul></nav>
    <div class="controls row"><${Connection}/><${Controls}/>
      <button type="button" class="scheme" aria-label=${SCHEMES[scheme.value]} title=${SCHEMES[scheme.value]} onClick=${() => { scheme.value = next[/** @type {"system"} */ (scheme.value)]; }}>◐</button></div></header>`;
}

/** @param {{name: string}} props */
function Opened({ name }) {
  const found = PAGES.find((one) => one[0] === name) ?? PAGES[0];
  const [page, setPage] = useState(/** @type {PageModule|null} */ (null));
  const [failure, setFailure] = useState("");
  useEffect(() => {
    let current = true;
    setPage(null);
    setFailure("");
    found[2]().then(
      (module) => current && setPage(module),
      (error) => current && setFailure(String(error)),
    );
    return () => {
      current = false;
    };
  }, [found[0]]);
  useEffect(() => {
    if (page) drawn.value = page.kinds;
    document.querySelector("nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }, [page]);
  if (failure) return html`<p class="bad">This page could not be loaded: ${failure}. Reload it.</p>`;
  return html`<h1 class="hidden">${found[1]}</h1>${page && html`<${page.Page} rest=${route.value.rest}/>`}`;
}

/** The view for a screen on a wall: large, without header and buttons. */
function Wall() {
  useEffect(() => {
    drawn.value = nowPage.kinds;
  }, []);
  return html`<main id="main" class="wall" tabindex="-1"><h1 class="hidden">llamadoze</h1><p class="row"><${Connection}/><time class="end">${new Date(now.value * 1000).toLocaleTimeString([], { hour12: false })}</time></p><${nowPage.Page} readOnly=${true}/></main>`;
}

function App() {
  const { name } = route.value;
  if (name === "wall") return html`<${Wall}/><${Said}/>`;
  const lost = connection.value === "lost";
  return html`<${Head}/><main id="main" tabindex="-1" class=${lost ? "stale" : ""} aria-busy=${!daemon.value}>
      ${lost && html`<p class="stale-since">llamadoze has not answered for ${counting(now.value - lostAt.value)}. This page shows old data.</p>`}
      <${Opened} name=${name}/></main><${Said}/><${Question}/>`;
}

render(html`<${App}/>`, /** @type {HTMLElement} */ (document.getElementById("app")));
connect();
