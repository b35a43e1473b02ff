// Lists the elements below a root that can be used, those in open shadow roots as well.
// Everything it gives is short: pages are larger than what is kept of them.
(root, { types, excluded, most }) => {
  const TEXT = 200;
  const BUTTONS = ["button", "submit", "reset", "image"];
  const USABLE =
    "button, input, select, textarea, a[href], summary, [contenteditable=''], [contenteditable=true], " +
    "[onclick], [role=button], [role=link], [role=checkbox], [role=radio], [role=switch], [role=tab], " +
    "[role=menuitem], [role=option], [role=slider], [role=textbox], [role=combobox], " +
    "[data-component], [data-component-id], [data-component-path]";
  const short = (value, length = TEXT) => String(value ?? "").trim().slice(0, length);

  const roots = [];
  const found = [];
  const walk = (node) => {
    for (const element of node.children) {
      if (excluded.some((selector) => element.matches(selector))) continue;
      if (element.matches(USABLE)) found.push(element);
      if (element.shadowRoot) {
        roots.push(element.shadowRoot);
        walk(element.shadowRoot);
      }
      walk(element);
    }
  };
  const everywhere = [document];
  for (const node of everywhere)
    for (const element of node.querySelectorAll("*"))
      if (element.shadowRoot) everywhere.push(element.shadowRoot);
  for (const selector of excluded) document.querySelector(selector); // throws if it is none
  walk({ children: [root] });

  const matching = (selector) => {
    try {
      return everywhere.reduce((sum, node) => sum + node.querySelectorAll(selector).length, 0);
    } catch {
      return 0;
    }
  };
  const quoted = (value) => `"${CSS.escape(value)}"`;
  const step = (element) => {
    const tag = CSS.escape(element.localName);
    const siblings = element.parentNode
      ? [...element.parentNode.children].filter((other) => other.localName === element.localName)
      : [element];
    return siblings.length === 1 ? tag : `${tag}:nth-of-type(${siblings.indexOf(element) + 1})`;
  };
  const cssPath = (element) => {
    const steps = [];
    for (let each = element; each; ) {
      steps.unshift(step(each));
      if (each.parentElement) {
        each = each.parentElement;
        steps.unshift(">");
      } else {
        each = each.getRootNode().host;
        if (each) steps.unshift(" ");
      }
    }
    return steps.join(" ").replace(/ +/g, " ");
  };
  const xpath = (element) => {
    let path = "";
    for (let each = element; each; each = each.parentElement) {
      const siblings = each.parentNode
        ? [...each.parentNode.children].filter((other) => other.localName === each.localName)
        : [each];
      path = `/${each.localName}[${siblings.indexOf(each) + 1}]${path}`;
    }
    return path;
  };
  const selectorOf = (element, path) => {
    const attributes = ["data-component-id", "data-testid", "name", "aria-label"];
    const candidates = element.id ? [`#${CSS.escape(element.id)}`] : [];
    for (const name of attributes) {
      const value = element.getAttribute(name);
      if (value) candidates.push(`${CSS.escape(element.localName)}[${name}=${quoted(value)}]`);
    }
    return candidates.find((selector) => selector.length <= 500 && matching(selector) === 1) ?? path;
  };
  const typeOf = (element) => {
    const role = element.getAttribute("role");
    if (element.localName === "a") return "link";
    if (element.localName === "input" && BUTTONS.includes(element.type)) return "button";
    if (["button", "input", "select", "textarea"].includes(element.localName)) return element.localName;
    if (role) return short(role, 50);
    return element.matches("[data-component], [data-component-id], [data-component-path]") ? "component" : short(element.localName, 50);
  };
  const textOf = (element) => {
    if (element.localName === "textarea") return ""; // what is in fields is nobody's business here
    if (element.localName === "input") return BUTTONS.includes(element.type) ? short(element.value) : "";
    return short(element.innerText ?? element.textContent);
  };
  const labelOf = (element) => {
    const label = element.labels?.[0] ?? element.closest("label");
    return short(label?.innerText);
  };
  const dataOf = (element) => {
    const entries = [...element.attributes].filter((each) => each.name.startsWith("data-")).slice(0, 20);
    return Object.fromEntries(entries.map((each) => [short(each.name.slice(5), 100), short(each.value)]));
  };

  const inventory = [];
  for (const element of found) {
    const type = typeOf(element);
    if (types.length && !types.includes(type) && !types.includes(element.localName) && !types.includes(element.type)) continue;
    if (inventory.length >= most) break;
    const box = element.getBoundingClientRect();
    const style = getComputedStyle(element);
    const path = cssPath(element);
    const index = inventory.length;
    inventory.push({
      id: `${type}-${index}`,
      index,
      type,
      tagName: short(element.localName, 100),
      className: short(element.getAttribute("class"), 500),
      selector: selectorOf(element, path),
      cssPath: path,
      xpath: xpath(element),
      text: textOf(element),
      label: labelOf(element),
      placeholder: short(element.getAttribute("placeholder")),
      title: short(element.getAttribute("title")),
      ariaLabel: short(element.getAttribute("aria-label")),
      position: { x: box.x, y: box.y, width: box.width, height: box.height },
      visible: box.width > 0 && box.height > 0 && style.visibility !== "hidden" && style.display !== "none",
      disabled: Boolean(element.disabled) || element.getAttribute("aria-disabled") === "true",
      readonly: Boolean(element.readOnly) || element.getAttribute("aria-readonly") === "true",
      componentPath: short(element.getAttribute("data-component-path"), 500),
      componentId: short(element.getAttribute("data-component-id"), 500),
      dataAttributes: dataOf(element),
    });
  }
  return inventory;
}
