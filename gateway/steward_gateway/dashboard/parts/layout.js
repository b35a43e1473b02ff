// The frame around every page: where one is, who one is, and whether the server answers.
import { html, useEffect } from "../vendor/preact.js";
import { connection } from "../connection.js";
import { liveState } from "../live.js";
import { usePlace } from "../router.js";
import { person, signOut } from "../session.js";
import { useStore } from "../store.js";
import { OpenedDialog } from "./dialogs.js";
import { Words } from "./notes.js";

/** @type {[string, string][]} */
const SECTIONS = [
  ["/", "Overview"],
  ["/agents", "Agents"],
  ["/spending", "Spending"],
  ["/environments", "Environments"],
  ["/playbooks", "Playbooks"],
  ["/executions", "Runs"],
  ["/inference", "Inference"],
  ["/settings", "Settings"],
];

/** @param {{children: unknown}} given */
export function Frame({ children }) {
  const { path } = usePlace();
  const who = useStore(person);
  const state = useStore(connection);
  const live = useStore(liveState);
  const isLive = state === "reached" && live === "open";
  /** @param {string} href */
  const isHere = (href) => (href === "/" ? path === "/" : path === href || path.startsWith(`${href}/`));
  return html`
    <a class="skip" href="#main">Skip to the content</a>
    <div class="frame">
      <nav class="side" aria-label="Main">
        <a class="brand" href="/"><img src="/dashboard/icon.svg" alt="" />Steward</a>
        <ul>${SECTIONS.map(([href, title]) => html`<li><a href=${href} aria-current=${isHere(href) ? "page" : undefined}>${title}</a></li>`)}</ul>
        <div class="who">
          <span class="name">${who?.username}</span> <span class="quiet role">${who?.role}</span>
          <div class="live"><span class=${`dot ${isLive ? "good" : "bad"}`}></span>${isLive ? "live" : state === "reached" ? "connecting…" : "cut off"}</div>
          <button class="plain" type="button" onClick=${signOut}>Sign out</button>
        </div>
      </nav>
      <div>
        ${state === "unreachable" ? html`<p class="banner" role="alert">The server cannot be reached. What you see is what was last known; this page goes on by itself when it is back.</p>` : null}
        <main id="main" tabindex="-1">${children}</main>
      </div>
    </div>
    <${OpenedDialog} />
    <${Words} />`;
}

/**
 * The head of a page; sets the title of the window too.
 * @param {{title: string, within?: [string, string][], beside?: unknown, children?: unknown}} given
 *   `within`: links to what it is part of; `children`: buttons.
 */
export function Head({ title, within = [], beside, children }) {
  useEffect(() => {
    document.title = `${title} – Steward`;
  }, [title]);
  return html`
    <div class="head">
      ${within.length > 0 ? html`<nav class="crumbs" aria-label="Where this is">${within.map(([href, text]) => html`<a href=${href}>${text}</a> / `)}</nav>` : null}
      <h1>${title}</h1>${beside}
      ${children ? html`<div class="tools">${children}</div>` : null}
    </div>`;
}

/** @param {{tabs: [string, string][], label: string}} given  URLs and their texts. */
export function Tabs({ tabs, label }) {
  const { path } = usePlace();
  return html`<nav class="tabs" aria-label=${label}>${tabs.map(([href, text]) => html`<a href=${href} aria-current=${path === href ? "page" : undefined}>${text}</a>`)}</nav>`;
}

/** @param {{title?: unknown, wide?: boolean, tools?: unknown, children: unknown}} given */
export function Card({ title, wide = false, tools, children }) {
  return html`
    <section class=${`card ${wide ? "wide" : ""}`}>
      ${title || tools ? html`<div class="head">${title ? html`<h2>${title}</h2>` : null}${tools ? html`<div class="tools">${tools}</div>` : null}</div>` : null}
      ${children}
    </section>`;
}

/** Names and what they stand for. @param {{of: [string, unknown][]}} given */
export function Facts({ of }) {
  return html`<dl class="facts">${of.map(([name, value]) => html`<dt>${name}</dt><dd>${value ?? "–"}</dd>`)}</dl>`;
}
