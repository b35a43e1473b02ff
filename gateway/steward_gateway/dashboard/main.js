// Where the page begins: which URL shows what. A page's module is loaded when it is first shown.
import { Component, html, render, useEffect, useState } from "./vendor/preact.js";
import { connection, revived } from "./connection.js";
import { MustChangePassword } from "./pages/change_password.js";
import { SignIn } from "./pages/sign_in.js";
import { Frame, Head } from "./parts/layout.js";
import { Empty, Loading } from "./parts/notes.js";
import { followLinks, usePlace } from "./router.js";
import { isAwaited, person, recognise, signOut } from "./session.js";
import { useStore } from "./store.js";

/** @typedef {{segments: string[], query: URLSearchParams}} PageGiven  `segments`: what follows the section's name. */

/** @type {Record<string, () => Promise<{Page: (given: PageGiven) => unknown}>>} */
const SECTIONS = {
  "": () => import("./pages/overview.js"),
  agents: () => import("./pages/agents.js"),
  spending: () => import("./pages/spending.js"),
  playbooks: () => import("./pages/playbooks.js"),
  inference: () => import("./pages/inference.js"),
  executions: () => import("./pages/executions.js"),
  environments: () => import("./pages/environments.js"),
  settings: () => import("./pages/settings.js"),
};

function Section() {
  const { segments, query } = usePlace();
  const [name = "", ...rest] = segments;
  const [shown, setShown] = useState(/** @type {{name: string, Page: any} | null} */ (null));
  const [isLost, setLost] = useState(false);
  const back = useStore(revived);
  useEffect(() => {
    let isLeft = false;
    setLost(false);
    SECTIONS[name]?.().then(
      ({ Page }) => isLeft || setShown({ name, Page }),
      () => isLeft || setLost(true), // the server is away; it is loaded once it is back
    );
    return () => {
      isLeft = true;
    };
  }, [name, back]);
  if (!SECTIONS[name]) return html`<${Head} title="Nothing is here" /><${Empty} title="No page has this address."><p><a href="/">Go to the overview</a></p><//>`;
  if (isLost) return html`<${Empty} title="This page could not be loaded."><p>It will be, when the server is back.</p><//>`;
  if (shown?.name !== name) return html`<${Loading} />`;
  return html`<${shown.Page} segments=${rest} query=${query} />`;
}

/** A fault in a page leaves the rest of the window standing. @extends {Component<{children: any, place: string}, {fault: Error | null}>} */
class Guarded extends Component {
  state = { fault: /** @type {Error | null} */ (null) };

  /** @param {Error} fault */
  componentDidCatch(fault) {
    console.error(fault);
    this.setState({ fault });
  }

  /** @param {{place: string}} next */
  componentWillReceiveProps(next) {
    if (next.place !== this.props.place) this.setState({ fault: null });
  }

  render() {
    const { fault } = this.state;
    if (!fault) return this.props.children;
    return html`<${Empty} title="This page has a fault."><p>${fault.message}</p><button class="plain" onClick=${() => this.setState({ fault: null })}>Try again</button><//>`;
  }
}

/** Somebody is signed in; who, is asked until the server says it. */
function Starting() {
  const state = useStore(connection);
  return html`
    ${state === "unreachable" ? html`<p class="banner" role="alert">The server cannot be reached; trying again…</p>` : null}
    <main class="starting" id="main">
      <h1>Steward</h1>
      <p role="status">Starting…</p>
      <button class="plain" type="button" onClick=${signOut}>Sign out</button>
    </main>`;
}

function App() {
  const { path } = usePlace();
  const who = useStore(person);
  const isStarting = useStore(isAwaited);
  const back = useStore(revived);
  useEffect(() => {
    if (back > 0 && !person.get()) recognise();
  }, [back]);
  if (!who) return isStarting ? html`<${Starting} />` : html`<${SignIn} />`;
  if (who.mustChangePassword) return html`<${MustChangePassword} />`;
  return html`<${Frame} key=${who.id}><${Guarded} place=${path}><${Section} /><//><//>`;
}

followLinks();
await recognise();
const app = /** @type {HTMLElement} */ (document.getElementById("app"));
app.replaceChildren();
render(html`<${App} />`, app);
