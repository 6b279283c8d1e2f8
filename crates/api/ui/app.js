// Starts the page that the address names. Plain DOM and modules, no build step; every address is relative to the page's own,
// so that any prefix works.

import { $, api, el, errorNote, isDark, store, theme } from "./base.js";
import { clusterPage } from "./cluster.js";
import { configPage, discoveryPage, flagsPage, rulesPage, statusPage, storagePage, targetsPage } from "./pages.js";
import { graphPage } from "./query.js";

const PAGES = {
  graph: graphPage,
  cluster: clusterPage,
  alerts: rulesPage,
  rules: rulesPage,
  targets: targetsPage,
  "service-discovery": discoveryPage,
  "tsdb-status": storagePage,
  config: configPage,
  flags: flagsPage,
  status: statusPage,
};

async function start() {
  theme(store.get("dark", matchMedia("(prefers-color-scheme: dark)").matches));
  $("theme").addEventListener("click", () => {
    store.set("dark", !isDark());
    theme(!isDark());
  });
  const page = location.pathname.split("/").at(-1);
  for (const link of document.querySelectorAll("nav a")) {
    const here = link.getAttribute("href") === page;
    link.classList.toggle("here", here);
    if (here && page !== "graph") document.title = `${link.textContent} – Isobar`;
  }
  api("notifications").then(({ data }) => $("notifications").replaceChildren(...data.map(({ text }) => el("div", { class: "note warn" }, text))), () => {});
  const main = $("main");
  try {
    await PAGES[page](main);
  } catch (error) {
    main.replaceChildren(errorNote(error));
  }
}

start();
