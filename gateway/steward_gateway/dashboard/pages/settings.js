// What is set up once, and who may do what: a tab for each.
import { html } from "../vendor/preact.js";
import { Head, Tabs } from "../parts/layout.js";
import { Empty } from "../parts/notes.js";
import { mayAs } from "../session.js";
import { Account } from "./settings/account.js";
import { Audit } from "./settings/audit.js";
import { Credentials } from "./settings/credentials.js";
import { Health } from "./settings/health.js";
import { Keys } from "./settings/keys.js";
import { Limits } from "./settings/limits.js";
import { People } from "./settings/people.js";
import { Projects } from "./settings/projects.js";
import { Providers } from "./settings/providers.js";

/** @typedef {{text: string, Shown: (given: {query: URLSearchParams}) => unknown, admin?: boolean}} Tab */

/** @type {Record<string, Tab>} */
const TABS = {
  account: { text: "Account", Shown: Account },
  keys: { text: "API keys", Shown: Keys },
  credentials: { text: "Credentials", Shown: Credentials },
  people: { text: "People", Shown: People, admin: true },
  providers: { text: "Providers", Shown: Providers, admin: true },
  projects: { text: "Projects", Shown: Projects, admin: true },
  limits: { text: "Limits", Shown: Limits },
  audit: { text: "Audit log", Shown: Audit, admin: true },
  health: { text: "Health", Shown: Health },
};

/** @param {import("../main.js").PageGiven} given */
export function Page({ segments, query }) {
  const tabs = Object.entries(TABS).filter(([, { admin }]) => !admin || mayAs("admin"));
  const [name = "account"] = segments;
  const chosen = tabs.find(([each]) => each === name)?.[1];
  return html`
    <${Head} title="Settings" />
    <${Tabs} label="Settings" tabs=${tabs.map(([each, { text }]) => [`/settings/${each}`, text])} />
    ${chosen ? html`<${chosen.Shown} key=${name} query=${query} />` : html`<${Empty} title="Nothing is here for you."><p>It is not there, or only administrators see it.</p><//>`}`;
}
