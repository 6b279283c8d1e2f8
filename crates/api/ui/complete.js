// Completion of expressions: names of metrics and of the language, and the list below the field.

import { api, el } from "./base.js";

const KEYWORDS = ["and", "atan2", "by", "group_left", "group_right", "ignoring", "offset", "on", "or", "unless", "without"];

let metricNames = null;
let metricMeta = {};
let functions = [];

/** Loads, once, what may be suggested: metrics of the last twelve hours, and the functions that this server has. */
export async function loadNames() {
  if (metricNames) return;
  metricNames = [];
  const now = Date.now() / 1000;
  const names = api("label/__name__/values", { limit: 20000, start: now - 43200, end: now });
  const meta = api("metadata", { limit_per_metric: 1 });
  const features = api("features");
  metricNames = (await names.catch(() => ({ data: [] }))).data;
  metricMeta = (await meta.catch(() => ({ data: {} }))).data;
  const known = (await features.catch(() => ({ data: {} }))).data;
  const called = Object.entries({ ...known.promql_operators, ...known.promql_functions });
  functions = called.filter(([name, on]) => on && /^[a-z]/.test(name) && !KEYWORDS.includes(name)).map(([name]) => name);
}

/** The word that ends at the caret, and whether it may be a metric or function. */
export function wordAt(text, caret) {
  const before = text.slice(0, caret);
  const word = /[a-zA-Z_:][\w:.]*$/.exec(before)?.[0] ?? "";
  const head = before.slice(0, before.length - word.length);
  // Inside quotes and braces there are values and labels, not metrics.
  const quotes = (head.replace(/\\./g, "").match(/["'`]/g) ?? []).length;
  const braces = (head.match(/{/g) ?? []).length - (head.match(/}/g) ?? []).length;
  return { word, start: before.length - word.length, inside: quotes % 2 === 1 || braces > 0 || /[\w\])]\s*\[[^\]]*$/.test(head) };
}

/** What `word` may become: [name, kind]; names of functions end with their parenthesis. */
export function suggestions(word) {
  const wanted = word.toLowerCase();
  const rank = (name) => {
    const at = name.toLowerCase().indexOf(wanted);
    return at < 0 ? null : at === 0 ? 0 : 1 + at;
  };
  const all = [];
  for (const name of metricNames ?? []) {
    const r = rank(name);
    if (r !== null) all.push([r, name, metricMeta[name]?.[0]?.type ?? "metric"]);
  }
  for (const [name, kind] of [...functions.map((name) => [name + "(", "function"]), ...KEYWORDS.map((name) => [name, "keyword"])]) {
    const r = rank(name);
    if (r !== null) all.push([r + (r ? 50 : 0), name, kind]);
  }
  all.sort((a, b) => a[0] - b[0] || a[1].length - b[1].length || (a[1] < b[1] ? -1 : 1));
  return all.slice(0, 60).map(([, name, kind]) => [name, kind]).filter(([name]) => name !== word);
}

/** The drop-down under a text field; `choose` gets the chosen item. */
export function dropDown(anchor) {
  let box = null;
  let items = [];
  let on = -1;
  let choose = null;
  const mark = (next) => {
    on = next;
    [...box.children].forEach((child, at) => child.classList.toggle("on", at === on));
    box.children[on]?.scrollIntoView({ block: "nearest" });
  };
  const close = () => {
    box?.remove();
    box = null;
    on = -1;
  };
  return {
    close,
    isOpen: () => box !== null,
    show(list, onChoose) {
      close();
      if (!list.length) return;
      [items, choose] = [list, onChoose];
      box = el("div", { class: "drop", role: "listbox" }, list.map(([text, side], at) => el("div", {
        role: "option",
        onmousedown: (event) => {
          event.preventDefault();
          close();
          onChoose(items[at]);
        },
      }, el("span", {}, text), side ? el("small", {}, side) : null)));
      anchor.append(box);
    },
    /** Handles a key; true when it was used. */
    key(event) {
      if (!box) return false;
      if (event.key === "ArrowDown") mark((on + 1) % items.length);
      else if (event.key === "ArrowUp") mark((on - 1 + items.length) % items.length);
      else if (event.key === "Escape") close();
      else if ((event.key === "Enter" || event.key === "Tab") && on >= 0) {
        const chosen = items[on];
        close();
        choose(chosen);
      } else if (event.key === "Tab" && items.length) {
        const chosen = items[0];
        close();
        choose(chosen);
      } else return false;
      event.preventDefault();
      return true;
    },
  };
}
