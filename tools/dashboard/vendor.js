// Makes the dashboard's vendored modules out of the packages that package-lock.json pins;
// with --check only says whether those in the tree are what it would make.
import { readFileSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

const FOLDER = new URL("../../gateway/steward_gateway/dashboard/vendor/", import.meta.url);

const MODULES = {
  preact: {
    packages: ["preact", "htm"],
    source: `
      import { h } from "preact";
      import htm from "htm";
      export { Component, createContext, render } from "preact";
      export * from "preact/hooks";
      export const html = htm.bind(h);
    `,
  },
  uplot: { packages: ["uplot"], source: `export { default } from "uplot";`, style: "uplot/dist/uPlot.min.css" },
  xterm: {
    packages: ["@xterm/xterm", "@xterm/addon-fit"],
    source: `export { Terminal } from "@xterm/xterm"; export { FitAddon } from "@xterm/addon-fit";`,
    style: "@xterm/xterm/css/xterm.css",
  },
};

function versionOf(name) {
  const about = JSON.parse(readFileSync(new URL(`node_modules/${name}/package.json`, import.meta.url), "utf8"));
  return `${name} ${about.version}, ${about.license}`;
}

async function bundled(stdin) {
  const options = { bundle: true, minify: true, write: false, format: "esm", target: "es2022", legalComments: "none" };
  const resolveDir = new URL(".", import.meta.url).pathname;
  const made = await build({ ...options, stdin: { ...stdin, resolveDir } });
  return made.outputFiles[0].text;
}

const stale = [];
for (const [name, { packages, source, style }] of Object.entries(MODULES)) {
  const banner = `/* ${packages.map(versionOf).join("; ")}. Made by tools/dashboard/vendor.js. */\n`;
  const files = { [`${name}.js`]: await bundled({ contents: source }) };
  if (style) files[`${name}.css`] = await bundled({ contents: `@import "${style}";`, loader: "css" });
  for (const [file, text] of Object.entries(files)) {
    const path = new URL(file, FOLDER);
    if (!process.argv.includes("--check")) writeFileSync(path, banner + text);
    else if (readFileSync(path, "utf8") !== banner + text) stale.push(file);
  }
}
if (stale.length > 0) {
  console.error(`stale in dashboard/vendor: ${stale.join(", ")}; run: npm --prefix tools/dashboard run vendor`);
  process.exitCode = 1;
}
