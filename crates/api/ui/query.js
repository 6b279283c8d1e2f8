// The page at `graph`: an expression, its table and its chart.

import { api, el, errorNote, formatDuration, formatTime, histogramText, numberOf, parseDuration, parseTime, seriesNodes, store, themeListeners } from "./base.js";
import { chart } from "./chart.js";
import { dropDown, loadNames, suggestions, wordAt } from "./complete.js";

const MAX_ROWS = 2000;
const MAX_LINES = 400;

export function graphPage(main) {
  const url = new URLSearchParams(location.search);
  const state = {
    expr: url.get("g0.expr") ?? "",
    tab: url.get("g0.tab") === "0" || url.get("g0.tab") === "graph" ? "graph" : "table",
    range: parseDuration(url.get("g0.range_input") ?? "") ?? 36e5,
    end: parseTime(url.get("g0.end_input") ?? ""),
    moment: parseTime(url.get("g0.moment_input") ?? ""),
    step: url.get("g0.step_input") ?? "",
  };
  for (const key of ["end", "moment"]) if (Number.isNaN(state[key])) state[key] = null;
  let running = null;

  const area = el("textarea", { rows: 1, spellcheck: "false", autocomplete: "off", placeholder: "Expression (Enter runs it, Shift+Enter starts a new line)", "aria-label": "PromQL expression" });
  area.value = state.expr;
  const field = el("div", { class: "field" }, area);
  const drop = dropDown(field);
  const execute = el("button", { class: "main", type: "button", onclick: () => run() }, "Execute");
  const history = el("button", { type: "button", title: "Earlier expressions", onclick: () => showHistory() }, "History");
  const figures = el("span", { class: "figures" });
  const tabs = { table: el("button", { type: "button", onclick: () => show("table") }, "Table"), graph: el("button", { type: "button", onclick: () => show("graph") }, "Graph") };
  const controls = el("div", { class: "controls" });
  const output = el("div", {});
  const notActive = el("div", {});
  main.replaceChildren(notActive, el("div", { class: "card" }, el("div", { class: "query" }, field, history, execute), el("div", { class: "tabs" }, tabs.table, tabs.graph, figures), controls, output));

  const grow = () => {
    area.style.height = "auto";
    area.style.height = Math.min(300, area.scrollHeight + 2) + "px";
  };

  function complete(force) {
    const { word, start, inside } = wordAt(area.value, area.selectionStart);
    if (inside || (word.length < 1 && !force)) return drop.close();
    drop.show(suggestions(word), ([name]) => {
      area.setRangeText(name, start, area.selectionStart, "end");
      area.focus();
      grow();
    });
  }

  function showHistory() {
    if (drop.isOpen()) return drop.close();
    area.focus();
    drop.show(store.get("history", []).map((text) => [text, ""]), ([text]) => {
      area.value = text;
      grow();
      run();
    });
  }

  area.addEventListener("input", () => {
    grow();
    loadNames().then(() => document.activeElement === area && complete(false));
    complete(false);
  });
  area.addEventListener("keydown", (event) => {
    if (drop.key(event)) return;
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      run();
    } else if (event.key === " " && event.ctrlKey) {
      event.preventDefault();
      loadNames().then(() => complete(true));
    }
  });
  area.addEventListener("blur", () => drop.close());

  function remember(first) {
    const params = new URLSearchParams();
    params.set("g0.expr", area.value);
    params.set("g0.tab", state.tab === "graph" ? "0" : "1");
    params.set("g0.range_input", formatDuration(state.range));
    if (state.end !== null) params.set("g0.end_input", formatTime(state.end));
    if (state.moment !== null) params.set("g0.moment_input", formatTime(state.moment));
    if (state.step) params.set("g0.step_input", state.step);
    const next = "?" + params;
    if (first) window.history.replaceState(null, "", next);
    else if (next !== location.search) window.history.pushState(null, "", next);
  }

  function timeInput(key, title, jump) {
    const input = el("input", {
      class: "long",
      placeholder: "now",
      title,
      "aria-label": title,
      onchange: () => {
        const value = parseTime(input.value);
        if (Number.isNaN(value)) return void input.setCustomValidity("not a time");
        input.setCustomValidity("");
        state[key] = value;
        run();
      },
    });
    input.value = state[key] === null ? "" : formatTime(state[key]);
    const move = (by) => {
      state[key] = Math.min((state[key] ?? Date.now()) + by, Date.now() + 864e5);
      run();
    };
    const clear = () => {
      state[key] = null;
      run();
    };
    return el("span", { class: "group" },
      el("button", { type: "button", title: "Earlier", onclick: () => move(-jump()) }, "‹"), input,
      el("button", { type: "button", title: "Later", onclick: () => move(jump()) }, "›"),
      el("button", { type: "button", title: "Now", onclick: clear }, "⟳"));
  }

  const RANGES = [1e3, 1e4, 6e4, 3e5, 9e5, 18e5, 36e5, 72e5, 216e5, 432e5, 864e5, 1728e5, 6048e5, 12096e5, 24192e5, 48384e5, 31536e6, 63072e6];

  function drawControls() {
    for (const [name, button] of Object.entries(tabs)) button.classList.toggle("on", name === state.tab);
    if (state.tab === "table") {
      controls.replaceChildren(el("label", {}, "Time", timeInput("moment", "Evaluation time", () => 3e5)));
      return;
    }
    const setRange = (range) => {
      state.range = range;
      run();
    };
    const input = el("input", {
      class: "short",
      title: "Range",
      "aria-label": "Range",
      onchange: () => {
        const range = parseDuration(input.value);
        if (range) setRange(range);
        else input.value = formatDuration(state.range);
      },
    });
    input.value = formatDuration(state.range);
    const smaller = RANGES.findLast((r) => r < state.range);
    const larger = RANGES.find((r) => r > state.range);
    const step = el("input", {
      class: "short",
      placeholder: "auto",
      title: "Resolution",
      "aria-label": "Resolution",
      onchange: () => {
        state.step = parseDuration(step.value) ? step.value.trim() : "";
        run();
      },
    });
    step.value = state.step;
    controls.replaceChildren(
      el("label", {}, "Range", el("span", { class: "group" },
        el("button", { type: "button", title: "Shorter", disabled: !smaller, onclick: () => setRange(smaller) }, "−"), input,
        el("button", { type: "button", title: "Longer", disabled: !larger, onclick: () => setRange(larger) }, "+"))),
      el("label", {}, "End", timeInput("end", "End time", () => state.range / 2)),
      el("label", {}, "Resolution", step));
  }

  function show(tab) {
    state.tab = tab;
    run();
  }

  async function run(first = false) {
    drop.close();
    drawControls();
    const query = area.value.trim();
    running?.abort();
    if (!query) {
      figures.textContent = "";
      output.replaceChildren(el("div", { class: "empty" }, "Write an expression, for example ", el("code", {}, "up"), "."));
      return;
    }
    remember(first);
    running = new AbortController();
    const { signal } = running;
    const begun = performance.now();
    const slow = setTimeout(() => (figures.textContent = "running …"), 150);
    execute.textContent = "Running";
    try {
      let answer;
      const range = state.tab === "graph";
      const end = state.end ?? Date.now();
      const step = Math.max(parseDuration(state.step) ?? Math.max(Math.floor(state.range / 250 / 1000) * 1000, 1000), 1);
      // The grid stays put while time goes on.
      const last = state.end === null ? Math.floor(end / step) * step : end;
      const start = last - state.range;
      if (range) answer = await api("query_range", { query, start: start / 1000, end: last / 1000, step: step / 1000, stats: "true" }, { signal, post: true });
      else answer = await api("query", { query, time: state.moment === null ? "" : state.moment / 1000, stats: "true" }, { signal, post: true });
      const took = performance.now() - begun;
      const { resultType, result, stats } = answer.data;
      const count = resultType === "scalar" || resultType === "string" ? 1 : result.length;
      const words = [`${Math.round(took)} ms`, `${count} series`];
      if (range) words.push(`step ${formatDuration(step)}`);
      if (stats) words.push(`${stats.samples.totalQueryableSamples.toLocaleString()} samples`, `${(stats.timings.execTotalTime * 1000).toFixed(1)} ms in the server`);
      figures.textContent = words.join(" · ");
      const notes = [...(answer.warnings ?? []).map((text) => ["warn", text]), ...(answer.infos ?? []).map((text) => ["info", text])];
      themeListeners.length = 0;
      output.replaceChildren(...notes.map(([kind, text]) => el("div", { class: "note " + kind }, text)), range ? graphOf(result, start, last, step) : tableOf(resultType, result));
      store.set("history", [query, ...store.get("history", []).filter((text) => text !== query)].slice(0, 50));
    } catch (error) {
      if (error.name === "AbortError") return;
      figures.textContent = "";
      output.replaceChildren(errorNote(error, area.value));
    } finally {
      clearTimeout(slow);
      if (!signal.aborted) execute.textContent = "Execute";
    }
  }

  function graphOf(result, start, end, step) {
    if (!result.length) return el("div", { class: "empty" }, "No series in this range.");
    const drawn = result.filter((one) => one.values);
    const parts = [];
    if (drawn.length < result.length) parts.push(el("div", { class: "note info" }, `${result.length - drawn.length} series hold native histograms; the table shows them.`));
    if (drawn.length > MAX_LINES) parts.push(el("div", { class: "note warn" }, `Only the first ${MAX_LINES} of ${drawn.length} series are drawn.`));
    const series = drawn.slice(0, MAX_LINES).map((one) => ({ metric: one.metric, points: one.values.map(([t, v]) => [t * 1000, numberOf(v)]) }));
    const zoom = (from, to) => {
      state.end = to;
      state.range = Math.max(1000, Math.round((to - from) / 1000) * 1000);
      run();
    };
    parts.push(chart(series, start, end, step, zoom));
    return el("div", {}, parts);
  }

  function tableOf(type, result) {
    if (type === "scalar" || type === "string") {
      return el("table", {}, el("tbody", {}, el("tr", {}, el("td", {}, type), el("td", { class: "num mono" }, result[1]))));
    }
    if (!result.length) return el("div", { class: "empty" }, "Empty result.");
    const value = (one) => {
      if (one.value) return el("td", { class: "num mono" }, one.value[1]);
      if (one.histogram) return el("td", { class: "mono" }, el("pre", { class: "text" }, histogramText(one.histogram[1])));
      const lines = [...(one.values ?? []).map(([t, v]) => `${v} @${t}`), ...(one.histograms ?? []).map(([t, h]) => `${histogramText(h)} @${t}`)];
      const more = lines.length > 200 ? [`… ${lines.length - 200} more`] : [];
      return el("td", { class: "mono" }, el("pre", { class: "text" }, [...lines.slice(0, 200), ...more].join("\n")));
    };
    const rows = result.slice(0, MAX_ROWS).map((one) => el("tr", {}, el("td", { class: "mono" }, seriesNodes(one.metric)), value(one)));
    const table = el("div", { class: "scroll" }, el("table", {}, el("thead", {}, el("tr", {}, el("th", {}, "Series"), el("th", { class: type === "vector" ? "num" : "" }, "Value"))), el("tbody", {}, rows)));
    const rest = result.length > MAX_ROWS ? el("p", { class: "hint" }, `Only the first ${MAX_ROWS} of ${result.length} series are shown.`) : null;
    return el("div", {}, table, rest);
  }

  window.addEventListener("popstate", () => graphPage(main), { once: true });
  grow();
  run(true);
  api("status/not_active").then(({ data }) => {
    if (!data.length) return;
    const list = el("ul", {}, data.map((line) => el("li", {}, line)));
    notActive.replaceChildren(el("details", { class: "note warn" }, el("summary", {}, `${data.length} ${data.length === 1 ? "setting of the configuration is" : "settings of the configuration are"} not active yet`), list));
  }, () => {});
  area.focus();
}
