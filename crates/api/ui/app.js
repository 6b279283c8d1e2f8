// The page: query with table and chart, targets, status. Plain DOM; everything that comes from the server is put in as
// text, never as markup. The address of each page is relative to its own, so that any prefix works.
"use strict";

// ---------------------------------------------------------------- small things

const $ = (id) => document.getElementById(id);

/** Makes an element: attributes and listeners by name, children as text or elements. */
function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "class") node.className = value;
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== undefined && value !== null) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((c) => c !== null && c !== undefined && c !== false));
  return node;
}

class ApiError extends Error {
  constructor(type, message) {
    super(message);
    this.type = type;
  }
}

/** Asks the API; gives {data, warnings, infos, bytes}. */
async function api(path, params = {}, { signal, post } = {}) {
  const form = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) {
    for (const one of Array.isArray(value) ? value : [value]) if (one !== undefined && one !== "") form.append(name, one);
  }
  const url = "api/v1/" + path + (!post && form.size ? "?" + form : "");
  const response = await fetch(url, { signal, method: post ? "POST" : "GET", body: post ? form : undefined });
  const text = await response.text();
  let answer;
  try {
    answer = JSON.parse(text);
  } catch {
    throw new ApiError("http", `${response.status} ${response.statusText}: ${text.slice(0, 300)}`);
  }
  if (answer.status !== "success") throw new ApiError(answer.errorType ?? "error", answer.error ?? "unknown error");
  return { ...answer, bytes: text.length };
}

const store = {
  get(key, fallback) {
    try {
      return JSON.parse(localStorage.getItem("isobar." + key)) ?? fallback;
    } catch {
      return fallback;
    }
  },
  set(key, value) {
    try {
      localStorage.setItem("isobar." + key, JSON.stringify(value));
    } catch {
      /* Private windows may refuse; nothing depends on it. */
    }
  },
};

const UNITS = [["y", 31536e6], ["w", 6048e5], ["d", 864e5], ["h", 36e5], ["m", 6e4], ["s", 1e3], ["ms", 1]];

/** `1h30m` in ms, or null. */
function parseDuration(text) {
  const plain = text.trim();
  if (/^\d+(\.\d+)?$/.test(plain)) return Number(plain) * 1000;
  const match = /^((\d+)y)?((\d+)w)?((\d+)d)?((\d+)h)?((\d+)m)?((\d+)s)?((\d+)ms)?$/.exec(plain);
  if (!plain || !match) return null;
  return UNITS.reduce((sum, [, size], at) => sum + Number(match[2 * at + 2] ?? 0) * size, 0) || null;
}

/** The shortest text of a duration in ms. */
function formatDuration(ms) {
  let out = "";
  for (const [unit, size] of UNITS) {
    if (unit === "w" || (unit === "y" && ms % size !== 0)) continue;
    const count = Math.floor(ms / size);
    if (count > 0) out += count + unit;
    ms -= count * size;
  }
  return out || "0s";
}

const pad = (n, width = 2) => String(n).padStart(width, "0");

/** Local time as `2026-11-22 10:11:12`. */
function formatTime(ms) {
  const t = new Date(ms);
  return `${t.getFullYear()}-${pad(t.getMonth() + 1)}-${pad(t.getDate())} ${pad(t.getHours())}:${pad(t.getMinutes())}:${pad(t.getSeconds())}`;
}

/** The reverse of formatTime; also RFC 3339 and unix seconds. Null when empty, NaN when wrong. */
function parseTime(text) {
  const plain = text.trim();
  if (!plain) return null;
  if (/^\d{9,11}(\.\d+)?$/.test(plain)) return Number(plain) * 1000;
  return new Date(/^\d{4}-\d\d-\d\d \d/.test(plain) ? plain.replace(" ", "T") : plain).getTime();
}

function formatNumber(value) {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "NaN" : value > 0 ? "+Inf" : "-Inf";
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e15 || size < 1e-4)) return value.toExponential(3);
  return String(Number(value.toPrecision(size >= 1e6 ? 10 : 6)));
}

/** Short form for axes: 1.2k, 3M. */
function formatTick(value, step) {
  const size = Math.max(Math.abs(value), Math.abs(step));
  for (const [factor, unit] of [[1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (size >= factor) {
      const decimals = Math.max(0, Math.min(4, Math.ceil(-Math.log10(step / factor) - 1e-9)));
      return (value / factor).toFixed(decimals) + unit;
    }
  }
  if (value === 0) return "0";
  if (size < 1e-4) return value.toExponential(1);
  return value.toFixed(Math.max(0, Math.min(8, Math.ceil(-Math.log10(step) - 1e-9))));
}

const numberOf = (text) => (text === "+Inf" ? Infinity : text === "-Inf" ? -Infinity : Number(text));

const plainName = /^[a-zA-Z_:][a-zA-Z0-9_:]*$/;

/** A series as PromQL writes it, as nodes. */
function seriesNodes(metric) {
  const { __name__: name, ...labels } = metric;
  const nodes = [];
  const parts = [];
  if (name !== undefined && plainName.test(name)) nodes.push(el("span", { class: "mname" }, name));
  else if (name !== undefined) parts.push([el("span", { class: "mname" }, JSON.stringify(name))]);
  for (const [label, value] of Object.entries(labels)) {
    parts.push([el("span", { class: "lname" }, plainName.test(label) ? label : JSON.stringify(label)), "=", JSON.stringify(value)]);
  }
  if (parts.length || !nodes.length) {
    nodes.push("{");
    parts.forEach((part, at) => nodes.push(...(at ? [", "] : []), ...part));
    nodes.push("}");
  }
  return nodes;
}

const seriesText = (metric) => el("span", {}, seriesNodes(metric)).textContent;

function histogramText(histogram) {
  const buckets = (histogram.buckets ?? []).map(([bounds, lower, upper, count]) => {
    const open = bounds === 1 || bounds === 3 ? "[" : "(";
    const close = bounds === 0 || bounds === 3 ? "]" : ")";
    return `${open}${lower}, ${upper}${close}: ${count}`;
  });
  return [`count ${histogram.count}, sum ${histogram.sum}`, ...buckets].join("\n");
}

/** A failed call. A parse error shows the query with the place marked. */
function errorNote(error, query) {
  const note = el("div", { class: "note bad", role: "alert" }, el("b", {}, (error.type ?? "error") + ": "), error.message);
  const place = /(?:^|: )(\d+):(\d+): parse error/.exec(error.message);
  if (place && query) {
    const lines = query.split("\n");
    const line = lines[Number(place[1]) - 1];
    if (line !== undefined) {
      // Columns count bytes.
      const bytes = new TextEncoder().encode(line).slice(0, Number(place[2]) - 1);
      const at = Math.min(new TextDecoder().decode(bytes).length, line.length);
      const word = /^[\w:.]+|^\s*\S?/.exec(line.slice(at))[0] || " ";
      note.append(el("pre", {}, line.slice(0, at), el("mark", {}, word), line.slice(at + word.length)));
    }
  }
  return note;
}

// ---------------------------------------------------------------- completion

const WORDS = ("abs absent absent_over_time acos acosh asin asinh atan atanh avg avg_over_time bottomk by ceil changes clamp clamp_max clamp_min cos cosh count count_over_time count_values day_of_month day_of_week day_of_year days_in_month deg delta deriv double_exponential_smoothing exp floor group group_left group_right histogram_avg histogram_count histogram_fraction histogram_quantile histogram_sum hour idelta ignoring increase irate label_join label_replace last_over_time limitk limit_ratio ln log10 log2 max max_over_time min min_over_time minute month offset on pi predict_linear present_over_time quantile quantile_over_time rad rate resets round scalar sgn sin sinh sort sort_by_label sort_by_label_desc sort_desc sqrt stddev stddev_over_time stdvar stdvar_over_time sum sum_over_time tan tanh time timestamp topk unless vector without year").split(" ");

let metricNames = null;
let metricMeta = {};

async function loadNames() {
  if (metricNames) return;
  metricNames = [];
  const now = Date.now() / 1000;
  const names = api("label/__name__/values", { limit: 20000, start: now - 43200, end: now });
  const meta = api("metadata", { limit_per_metric: 1 });
  metricNames = (await names.catch(() => ({ data: [] }))).data;
  metricMeta = (await meta.catch(() => ({ data: {} }))).data;
}

/** The word that ends at the caret, and whether it may be a metric or function. */
function wordAt(text, caret) {
  const before = text.slice(0, caret);
  const word = /[a-zA-Z_:][\w:.]*$/.exec(before)?.[0] ?? "";
  const head = before.slice(0, before.length - word.length);
  // Inside quotes and braces there are values and labels, not metrics.
  const quotes = (head.replace(/\\./g, "").match(/["'`]/g) ?? []).length;
  const braces = (head.match(/{/g) ?? []).length - (head.match(/}/g) ?? []).length;
  return { word, start: before.length - word.length, inside: quotes % 2 === 1 || braces > 0 || /[\w\])]\s*\[[^\]]*$/.test(head) };
}

function suggestions(word) {
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
  for (const name of WORDS) {
    const r = rank(name);
    if (r !== null) all.push([r + (r ? 50 : 0), name, "PromQL"]);
  }
  all.sort((a, b) => a[0] - b[0] || a[1].length - b[1].length || (a[1] < b[1] ? -1 : 1));
  return all.slice(0, 60).filter(([, name]) => name !== word);
}

/** The drop-down under a text field; `choose` gets the chosen item. */
function dropDown(anchor) {
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

// ---------------------------------------------------------------- chart

const COLORS = ["#2563eb", "#d9480f", "#0d9488", "#c026d3", "#65a30d", "#b45309", "#0891b2", "#e11d48", "#7c3aed", "#4d7c0f", "#be185d", "#475569"];
const DARK_COLORS = ["#6e9bff", "#ff9457", "#3fd0bd", "#e58bf2", "#a8d64a", "#f0b352", "#4ecbe6", "#ff7b94", "#b49bff", "#c3d977", "#f58ac0", "#a9b6c8"];

const isDark = () => document.documentElement.classList.contains("dark");
const colorOf = (at) => (isDark() ? DARK_COLORS : COLORS)[at % COLORS.length];

function niceStep(span, wanted) {
  const raw = span / Math.max(1, wanted);
  const power = 10 ** Math.floor(Math.log10(raw));
  return [1, 2, 2.5, 5, 10].map((f) => f * power).find((s) => s >= raw) ?? raw;
}

const TIME_STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800, 1209600, 2592000, 7776000, 31536000].map((s) => s * 1000);

function timeTicks(start, end, wanted) {
  const step = TIME_STEPS.find((s) => (end - start) / s <= wanted) ?? TIME_STEPS.at(-1);
  const shift = new Date(start).getTimezoneOffset() * 60000;
  const ticks = [];
  for (let t = Math.ceil((start - shift) / step) * step + shift; t <= end; t += step) ticks.push(t);
  return { ticks, step };
}

function tickText(ms, step, span) {
  const t = new Date(ms);
  const day = `${pad(t.getMonth() + 1)}-${pad(t.getDate())}`;
  if (step >= 864e5) return span > 300 * 864e5 ? `${t.getFullYear()}-${day}` : day;
  const clock = `${pad(t.getHours())}:${pad(t.getMinutes())}` + (step < 60000 ? `:${pad(t.getSeconds())}` : "");
  return span > 864e5 ? `${day} ${clock}` : clock;
}

/**
 * A line chart of `series` ([{metric, points: [[ms, value]]}]) from `start` to `end`, ms. Points further apart than
 * `gap` ms are not joined. `zoom(from, to)` is called when a range is drawn with the mouse.
 */
function chart(series, start, end, gap, zoom) {
  const canvas = el("canvas", { role: "img", "aria-label": `line chart of ${series.length} series` });
  const box = el("div", { class: "chart" }, canvas);
  const tip = el("div", { class: "tip", hidden: true });
  box.append(tip);
  const hidden = new Set();
  let view = null;
  let pointer = null;
  let drag = null;
  let strong = -1;

  function bounds() {
    let low = Infinity;
    let high = -Infinity;
    series.forEach((one, at) => {
      if (hidden.has(at)) return;
      for (const [, value] of one.points) {
        if (!Number.isFinite(value)) continue;
        if (value < low) low = value;
        if (value > high) high = value;
      }
    });
    if (low > high) return [0, 1];
    if (low === high) {
      const room = Math.abs(low) * 0.1 || 1;
      return [low - room, high + room];
    }
    // Zero is worth showing when it is near.
    if (low > 0 && low < (high - low) * 0.6) low = 0;
    const room = (high - low) * 0.06;
    return [low === 0 ? 0 : low - room, high + room];
  }

  function draw() {
    const width = box.clientWidth;
    const height = box.clientHeight;
    if (!width || !height) return;
    const scale = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
    }
    const c = canvas.getContext("2d");
    c.setTransform(scale, 0, 0, scale, 0, 0);
    c.clearRect(0, 0, width, height);
    const style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(name).trim();
    c.font = '12px system-ui, "DejaVu Sans", sans-serif';

    const [low, high] = bounds();
    const yStep = niceStep(high - low, Math.max(2, height / 55));
    const yTicks = [];
    for (let y = Math.ceil(low / yStep - 1e-9) * yStep; y <= high + yStep * 1e-9; y += yStep) yTicks.push(Math.abs(y) < yStep * 1e-9 ? 0 : y);
    const labels = yTicks.map((y) => formatTick(y, yStep));
    const left = Math.max(36, ...labels.map((l) => c.measureText(l).width + 16));
    const [top, right, bottom] = [10, 14, 28];
    const x = (ms) => left + ((ms - start) / (end - start || 1)) * (width - left - right);
    const y = (value) => height - bottom - ((value - low) / (high - low)) * (height - top - bottom);
    view = { x, y, left, right: width - right, top, bottom: height - bottom, toTime: (px) => start + ((px - left) / (width - left - right)) * (end - start) };

    c.strokeStyle = color("--grid");
    c.fillStyle = color("--soft");
    c.lineWidth = 1;
    c.textBaseline = "middle";
    c.textAlign = "right";
    yTicks.forEach((value, at) => {
      const py = Math.round(y(value)) + 0.5;
      c.beginPath();
      c.moveTo(left, py);
      c.lineTo(width - right, py);
      c.stroke();
      c.fillText(labels[at], left - 8, py);
    });
    c.textAlign = "center";
    c.textBaseline = "top";
    const { ticks, step } = timeTicks(start, end, Math.max(2, (width - left) / 110));
    for (const t of ticks) {
      const px = Math.round(x(t)) + 0.5;
      c.beginPath();
      c.moveTo(px, top);
      c.lineTo(px, height - bottom);
      c.stroke();
      const text = tickText(t, step, end - start);
      const half = c.measureText(text).width / 2;
      if (px - half > 2 && px + half < width - 2) c.fillText(text, px, height - bottom + 8);
    }

    c.save();
    c.beginPath();
    c.rect(left, top - 4, width - left - right, height - top - bottom + 8);
    c.clip();
    c.lineJoin = "round";
    const order = series.map((_, at) => at).filter((at) => !hidden.has(at));
    order.sort((a, b) => (a === strong) - (b === strong));
    for (const at of order) {
      c.strokeStyle = c.fillStyle = colorOf(at);
      c.globalAlpha = strong < 0 || strong === at ? 1 : 0.25;
      c.lineWidth = strong === at ? 2.4 : 1.5;
      c.beginPath();
      let last = -Infinity;
      let run = 0;
      const lone = [];
      let previous = null;
      for (const [t, value] of series[at].points) {
        if (!Number.isFinite(value)) {
          last = -Infinity;
          continue;
        }
        const joined = t - last <= gap * 1.01;
        if (!joined) {
          if (run === 1) lone.push(previous);
          c.moveTo(x(t), y(value));
          run = 1;
        } else {
          c.lineTo(x(t), y(value));
          run += 1;
        }
        previous = [x(t), y(value)];
        last = t;
      }
      if (run === 1) lone.push(previous);
      c.stroke();
      for (const [px, py] of lone) {
        c.beginPath();
        c.arc(px, py, 2.2, 0, 7);
        c.fill();
      }
    }
    c.globalAlpha = 1;
    if (drag && pointer) {
      c.fillStyle = color("--accent");
      c.globalAlpha = 0.14;
      c.fillRect(Math.min(drag, pointer.x), top, Math.abs(pointer.x - drag), height - top - bottom);
      c.globalAlpha = 1;
    }
    c.restore();
    hover(c, color);
  }

  /** The points of all shown series that are nearest in time to `time`. */
  function nearest(time) {
    const found = [];
    series.forEach((one, at) => {
      if (hidden.has(at) || !one.points.length) return;
      let low = 0;
      let high = one.points.length - 1;
      while (low < high) {
        const middle = (low + high) >> 1;
        if (one.points[middle][0] < time) low = middle + 1;
        else high = middle;
      }
      if (low > 0 && time - one.points[low - 1][0] < one.points[low][0] - time) low -= 1;
      const [t, value] = one.points[low];
      if (Math.abs(t - time) <= Math.max(gap, (end - start) / 60)) found.push({ at, t, value });
    });
    return found;
  }

  function hover(c, color) {
    if (!pointer || pointer.x < view.left || pointer.x > view.right) {
      tip.hidden = true;
      return;
    }
    const found = nearest(view.toTime(pointer.x));
    if (!found.length) {
      tip.hidden = true;
      return;
    }
    const distance = (one) => (Number.isFinite(one.value) ? Math.abs(view.y(one.value) - pointer.y) : 1e9) + Math.abs(view.x(one.t) - pointer.x);
    found.sort((a, b) => distance(a) - distance(b));
    const best = found[0];
    const px = Math.round(view.x(best.t)) + 0.5;
    c.strokeStyle = color("--soft");
    c.globalAlpha = 0.6;
    c.beginPath();
    c.moveTo(px, view.top);
    c.lineTo(px, view.bottom);
    c.stroke();
    c.globalAlpha = 1;
    if (Number.isFinite(best.value)) {
      c.fillStyle = colorOf(best.at);
      c.beginPath();
      c.arc(view.x(best.t), view.y(best.value), 4, 0, 7);
      c.fill();
    }
    const others = found.slice(1, 8).filter((one) => one.t === best.t);
    const swatch = (at) => {
      const node = el("span", { class: "swatch" });
      node.style.background = colorOf(at);
      return node;
    };
    const row = (one) => el("div", { class: "row" }, swatch(one.at), el("b", {}, formatNumber(one.value)), el("span", { class: "mono" }, seriesNodes(series[one.at].metric)));
    tip.replaceChildren(el("div", {}, formatTime(best.t)), row(best), ...others.map(row), found.length > 8 ? el("div", { class: "hint" }, `and ${found.length - 8} more`) : "");
    tip.hidden = false;
    const room = box.clientWidth - tip.offsetWidth - 8;
    const wanted = px + 16 > room ? px - tip.offsetWidth - 16 : px + 16;
    tip.style.left = Math.max(4, Math.min(room, wanted)) + "px";
    tip.style.top = Math.max(0, Math.min(box.clientHeight - tip.offsetHeight, pointer.y - 20)) + "px";
  }

  let queued = false;
  const redraw = () => {
    if (queued) return;
    queued = true;
    requestAnimationFrame(() => {
      queued = false;
      draw();
    });
  };
  const at = (event) => {
    const rect = canvas.getBoundingClientRect();
    return { x: event.clientX - rect.left, y: event.clientY - rect.top };
  };
  canvas.addEventListener("pointermove", (event) => {
    pointer = at(event);
    redraw();
  });
  canvas.addEventListener("pointerleave", () => {
    pointer = null;
    if (!drag) redraw();
  });
  canvas.addEventListener("pointerdown", (event) => {
    drag = at(event).x;
    canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointerup", (event) => {
    const [from, to] = [drag, at(event).x];
    drag = null;
    if (from !== null && Math.abs(to - from) > 6) zoom(view.toTime(Math.min(from, to)), view.toTime(Math.max(from, to)));
    else redraw();
  });
  new ResizeObserver(redraw).observe(box);
  themeListeners.push(redraw);

  const rows = series.map((one, index) => {
    const swatch = el("span", { class: "swatch" });
    const paint = () => {
      swatch.style.background = colorOf(index);
    };
    paint();
    themeListeners.push(paint);
    return el("div", {
      class: "row",
      onmouseenter: () => {
        strong = index;
        redraw();
      },
      onmouseleave: () => {
        strong = -1;
        redraw();
      },
      onclick: (event) => {
        if (event.ctrlKey || event.metaKey) {
          if (!hidden.delete(index)) hidden.add(index);
        } else if (hidden.size === series.length - 1 && !hidden.has(index)) hidden.clear();
        else series.forEach((_, other) => (other === index ? hidden.delete(other) : hidden.add(other)));
        rows.forEach((row, other) => row.classList.toggle("off", hidden.has(other)));
        redraw();
      },
    }, swatch, el("span", { class: "mono" }, seriesNodes(one.metric)));
  });
  const legend = el("div", { class: "legend" }, rows);
  return el("div", {}, box, legend, series.length > 1 ? el("p", { class: "hint" }, "Click a series to see it alone, with Ctrl to hide or show it. Draw over the chart to zoom in.") : null);
}

// ---------------------------------------------------------------- query page

const MAX_ROWS = 2000;
const MAX_LINES = 400;

function graphPage(main) {
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
    const list = suggestions(word).map(([, name, side]) => [name, side]);
    drop.show(list, ([name, side]) => {
      const call = side === "PromQL" && !/^(by|without|on|ignoring|offset|group_left|group_right|unless)$/.test(name) ? name + "(" : name;
      area.setRangeText(call, start, area.selectionStart, "end");
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

// ---------------------------------------------------------------- targets page

function ago(time) {
  const ms = Date.now() - new Date(time).getTime();
  return new Date(time).getFullYear() < 1971 ? "never" : ms < 0 ? "just now" : `${(ms / 1000).toFixed(ms < 1e4 ? 1 : 0)} s ago`;
}

async function targetsPage(main) {
  const { data } = await api("targets", { state: "any" });
  const pools = new Map();
  for (const target of data.activeTargets) pools.set(target.scrapePool, [...(pools.get(target.scrapePool) ?? []), target]);
  const cards = [...pools].map(([pool, targets]) => {
    const up = targets.filter((t) => t.health === "up").length;
    const rows = targets.map((target) => el("tr", {},
      el("td", { class: "mono" }, /^https?:\/\//.test(target.globalUrl) ? el("a", { href: target.globalUrl, rel: "noreferrer" }, target.scrapeUrl) : target.scrapeUrl, target.lastError ? el("div", { class: "note bad" }, target.lastError) : null),
      el("td", {}, el("span", { class: "pill " + (["up", "down"].includes(target.health) ? target.health : "unknown") }, target.health)),
      el("td", { class: "mono" }, seriesNodes(target.labels)),
      el("td", { class: "num" }, ago(target.lastScrape)),
      el("td", { class: "num" }, `${(target.lastScrapeDuration * 1000).toFixed(1)} ms`),
      el("td", { class: "num" }, target.scrapeInterval)));
    return el("div", { class: "card" }, el("h2", {}, `${pool} (${up} of ${targets.length} up)`), el("div", { class: "scroll" }, el("table", {},
      el("thead", {}, el("tr", {}, ["Target", "State", "Labels"].map((t) => el("th", {}, t)), ["Last scrape", "Took", "Every"].map((t) => el("th", { class: "num" }, t)))), el("tbody", {}, rows))));
  });
  const dropped = Object.entries(data.droppedTargetCounts ?? {}).filter(([, count]) => count > 0);
  if (dropped.length) {
    const lines = dropped.map(([pool, count]) => `${pool}: ${count}`).join(", ");
    cards.push(el("div", { class: "card" }, el("h2", {}, "Dropped by relabelling"), el("p", {}, lines), el("pre", { class: "text" }, data.droppedTargets.map((t) => `${t.scrapePool} ${seriesText(t.discoveredLabels)}`).join("\n"))));
  }
  main.replaceChildren(...(cards.length ? cards : [el("div", { class: "card empty" }, "There are no targets.")]));
}

// ---------------------------------------------------------------- status page

function pairs(object) {
  return el("table", {}, el("tbody", {}, Object.entries(object).filter(([, value]) => value !== "").map(([name, value]) => el("tr", {}, el("th", {}, name), el("td", { class: "mono" }, String(value))))));
}

function counts(title, list) {
  const rows = list.map(({ name, value }) => el("tr", {}, el("td", { class: "mono" }, name), el("td", { class: "num" }, value.toLocaleString())));
  return el("div", { class: "card" }, el("h2", {}, title), rows.length ? el("table", {}, el("tbody", {}, rows)) : el("div", { class: "empty" }, "Nothing yet."));
}

async function statusPage(main) {
  const names = ["status/runtimeinfo", "status/buildinfo", "status/tsdb", "status/flags", "status/config", "status/not_active", "status/active_queries"];
  const all = await Promise.all(names.map((name) => api(name, name === "status/tsdb" ? { limit: 10 } : {}).then((a) => a.data, (error) => ({ error: error.message }))));
  const [runtime, build, tsdb, flags, config, notActive, active] = all;
  const head = tsdb.headStats ?? {};
  const time = (ms) => (ms === undefined || Math.abs(ms) > 8.64e15 ? "" : formatTime(ms));
  const { GOGC, GODEBUG, GOMEMLIMIT, goroutineCount, ...figures } = runtime;
  const cards = [
    el("div", { class: "card" }, el("h2", {}, "Build"), pairs({ version: build.isobarVersion, "matches Prometheus": build.version, revision: build.revision, compiler: build.goVersion })),
    el("div", { class: "card" }, el("h2", {}, "Process"), pairs(figures)),
    el("div", { class: "card" }, el("h2", {}, "Storage head"), pairs({ series: head.numSeries?.toLocaleString(), "label pairs": head.numLabelPairs?.toLocaleString(), chunks: head.chunkCount?.toLocaleString(), "oldest sample": time(head.minTime), "newest sample": time(head.maxTime) })),
    el("div", { class: "card" }, el("h2", {}, "Not active yet"), Array.isArray(notActive) && notActive.length ? el("ul", {}, notActive.map((line) => el("li", {}, line))) : el("div", { class: "empty" }, "Everything in the configuration is active.")),
    counts("Series by metric", tsdb.seriesCountByMetricName ?? []),
    counts("Values by label", tsdb.labelValueCountByLabelName ?? []),
    counts("Series by label and value", tsdb.seriesCountByLabelValuePair ?? []),
    counts("Bytes by label", tsdb.memoryInBytesByLabelName ?? []),
    el("div", { class: "card" }, el("h2", {}, "Queries under way"), Array.isArray(active) && active.length ? el("table", {}, el("tbody", {}, active.map((q) => el("tr", {}, el("td", { class: "num" }, String(q.id)), el("td", { class: "mono" }, q.query), el("td", { class: "num" }, ago(q.startedAt)))))) : el("div", { class: "empty" }, "None.")),
    el("div", { class: "card" }, el("h2", {}, "Flags"), pairs(flags)),
    el("div", { class: "card" }, el("h2", {}, "Configuration"), el("pre", { class: "text" }, config.yaml ?? "")),
  ];
  main.replaceChildren(el("div", { class: "two" }, cards));
}

// ---------------------------------------------------------------- start

const themeListeners = [];

function theme(dark) {
  document.documentElement.classList.toggle("dark", dark);
  for (const listener of themeListeners) listener();
}

async function start() {
  theme(store.get("dark", matchMedia("(prefers-color-scheme: dark)").matches));
  $("theme").addEventListener("click", () => {
    store.set("dark", !isDark());
    theme(!isDark());
  });
  const page = location.pathname.split("/").at(-1);
  for (const link of document.querySelectorAll("nav a")) link.classList.toggle("here", link.dataset.page === page);
  const main = $("main");
  const pages = { graph: graphPage, targets: targetsPage, status: statusPage };
  document.title = { graph: "Isobar", targets: "Targets – Isobar", status: "Status – Isobar" }[page] ?? "Isobar";
  try {
    await (pages[page] ?? graphPage)(main);
  } catch (error) {
    main.replaceChildren(errorNote(error));
  }
}

start();
