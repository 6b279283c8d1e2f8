// The pages that show what the API answers as it is: targets, discovery, rules, alerts, storage, configuration, flags, status.

import { api, el, formatTime, seriesNodes } from "./base.js";

const card = (title, ...children) => el("div", { class: "card" }, el("h2", {}, title), ...children);
const empty = (text) => el("div", { class: "empty" }, text);
const list = (lines) => el("ul", {}, lines.map((line) => el("li", {}, line)));

/** How long ago, as text; Go's zero time is "never". */
function ago(time) {
  const ms = Date.now() - new Date(time).getTime();
  return new Date(time).getFullYear() < 1971 ? "never" : ms < 0 ? "just now" : `${(ms / 1000).toFixed(ms < 1e4 ? 1 : 0)} s ago`;
}

/** A table; `heads` whose text begins with "#" are of numbers. Rows are lists of cells. */
export function table(heads, rows) {
  const head = (text) => (text.startsWith("#") ? el("th", { class: "num" }, text.slice(1)) : el("th", {}, text));
  return el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, heads.map(head))), el("tbody", {}, rows.map((row) => el("tr", {}, row)))));
}

export const pill = (kind, text) => el("span", { class: "pill " + kind }, text);
export const cell = (...children) => el("td", {}, ...children);
export const number = (value) => el("td", { class: "num" }, String(value));
export const code = (...children) => el("td", { class: "mono" }, ...children);

/** Names and values, without those that are empty. */
export function pairs(object) {
  const rows = Object.entries(object).filter(([, value]) => value !== "");
  return el("table", {}, el("tbody", {}, rows.map(([name, value]) => el("tr", {}, el("th", {}, name), code(String(value))))));
}

/** A field that hides the rows of `tables` that do not contain its text. */
function filter(tables) {
  const input = el("input", { class: "long", placeholder: "filter", "aria-label": "filter", oninput: () => {
    const wanted = input.value.toLowerCase();
    for (const one of tables) for (const row of one.querySelectorAll("tbody tr")) row.hidden = !row.textContent.toLowerCase().includes(wanted);
  } });
  return el("div", { class: "controls" }, input);
}

function byPool(targets) {
  const pools = new Map();
  for (const target of targets) pools.set(target.scrapePool, [...(pools.get(target.scrapePool) ?? []), target]);
  return [...pools];
}

function withFilter(main, cards, nothing) {
  main.replaceChildren(...(cards.length ? [filter(cards), ...cards] : [el("div", { class: "card empty" }, nothing)]));
}

export async function targetsPage(main) {
  const { data } = await api("targets", { state: "active" });
  const cards = byPool(data.activeTargets).map(([pool, targets]) => {
    const up = targets.filter((t) => t.health === "up").length;
    const rows = targets.map((target) => [
      code(/^https?:\/\//.test(target.globalUrl) ? el("a", { href: target.globalUrl, rel: "noreferrer" }, target.scrapeUrl) : target.scrapeUrl, target.lastError ? el("div", { class: "note bad" }, target.lastError) : null),
      cell(pill({ up: "good", down: "bad" }[target.health] ?? "", target.health)),
      code(seriesNodes(target.labels)),
      number(ago(target.lastScrape)),
      number(`${(target.lastScrapeDuration * 1000).toFixed(1)} ms`),
      number(target.scrapeInterval),
    ]);
    return card(`${pool} (${up} of ${targets.length} up)`, table(["Target", "State", "Labels", "#Last scrape", "#Took", "#Every"], rows));
  });
  withFilter(main, cards, "There are no targets.");
}

export async function discoveryPage(main) {
  const { data } = await api("targets", { state: "any" });
  const all = byPool([...data.activeTargets, ...data.droppedTargets]);
  const cards = all.map(([pool, targets]) => {
    const kept = targets.filter((t) => t.labels).length;
    const dropped = data.droppedTargetCounts?.[pool] ?? targets.length - kept;
    const rows = targets.map((t) => [code(seriesNodes(t.discoveredLabels)), t.labels ? code(seriesNodes(t.labels)) : cell(pill("warn", "dropped by relabelling"))]);
    return card(`${pool} (${kept} kept, ${dropped} dropped)`, table(["As discovered", "As scraped"], rows));
  });
  withFilter(main, cards, "Nothing is discovered.");
}

/** Rules and alerts: what of the configuration would ask for them. */
export async function rulesPage(main) {
  const { data } = await api("status/not_active");
  const lines = data.filter((line) => /^(rule_files|alerting)/.test(line));
  main.replaceChildren(card("Rules and alerts", el("p", {}, "This version evaluates no rules and sends no alerts: leave them to the Prometheus beside it."), lines.length ? list(lines) : empty("The configuration names none.")));
}

function counts(title, entries) {
  const rows = entries.map(({ name, value }) => [code(name), number(value.toLocaleString())]);
  return card(title, rows.length ? table(["Name", "#Count"], rows) : empty("Nothing yet."));
}

export async function storagePage(main) {
  const { data } = await api("status/tsdb", { limit: 20 });
  const head = data.headStats;
  const time = (ms) => (Math.abs(ms) > 8.64e15 ? "" : formatTime(ms));
  main.replaceChildren(el("div", { class: "two" },
    card("Storage head", pairs({ series: head.numSeries.toLocaleString(), "label pairs": head.numLabelPairs.toLocaleString(), chunks: head.chunkCount.toLocaleString(), "oldest sample": time(head.minTime), "newest sample": time(head.maxTime) })),
    counts("Series by metric", data.seriesCountByMetricName),
    counts("Values by label", data.labelValueCountByLabelName),
    counts("Series by label and value", data.seriesCountByLabelValuePair),
    counts("Bytes by label", data.memoryInBytesByLabelName)));
}

export async function configPage(main) {
  const { data } = await api("status/config");
  main.replaceChildren(card("Configuration, as loaded; secrets are left out", el("pre", { class: "text" }, data.yaml)));
}

export async function flagsPage(main) {
  const { data } = await api("status/flags");
  const rows = Object.entries(data).map(([name, value]) => [code("--" + name), code(value)]);
  withFilter(main, [card("Flags", table(["Flag", "Value"], rows))], "");
}

export async function statusPage(main) {
  const names = ["status/runtimeinfo", "status/buildinfo", "status/not_active", "status/active_queries"];
  const [runtime, build, notActive, active] = await Promise.all(names.map((name) => api(name).then((answer) => answer.data)));
  const { GOGC, GODEBUG, GOMEMLIMIT, goroutineCount, ...figures } = runtime;
  main.replaceChildren(el("div", { class: "two" },
    card("Build", pairs({ version: build.isobarVersion, "matches Prometheus": build.version, revision: build.revision, compiler: build.goVersion })),
    card("Process", pairs(figures)),
    card("Not active yet", notActive.length ? list(notActive) : empty("Everything in the configuration is active.")),
    card("Queries under way", active.length ? table(["#Id", "Query", "#Begun"], active.map((q) => [number(q.id), code(q.query), number(ago(q.startedAt))])) : empty("None."))));
}
