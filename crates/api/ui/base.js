// What the pages share: elements, calls of the API, times and numbers as text, light and dark. Everything that comes from
// the server is put in as text, never as markup.

export const $ = (id) => document.getElementById(id);

/** Makes an element: attributes and listeners by name, children as text or elements. */
export function el(tag, attributes = {}, ...children) {
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
export async function api(path, params = {}, { signal, post } = {}) {
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

export const store = {
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
export function parseDuration(text) {
  const plain = text.trim();
  if (/^\d+(\.\d+)?$/.test(plain)) return Number(plain) * 1000;
  const match = /^((\d+)y)?((\d+)w)?((\d+)d)?((\d+)h)?((\d+)m)?((\d+)s)?((\d+)ms)?$/.exec(plain);
  if (!plain || !match) return null;
  return UNITS.reduce((sum, [, size], at) => sum + Number(match[2 * at + 2] ?? 0) * size, 0) || null;
}

/** The shortest text of a duration in ms. */
export function formatDuration(ms) {
  let out = "";
  for (const [unit, size] of UNITS) {
    if (unit === "w" || (unit === "y" && ms % size !== 0)) continue;
    const count = Math.floor(ms / size);
    if (count > 0) out += count + unit;
    ms -= count * size;
  }
  return out || "0s";
}

export const pad = (n, width = 2) => String(n).padStart(width, "0");

/** Local time as `2026-11-22 10:11:12`. */
export function formatTime(ms) {
  const t = new Date(ms);
  return `${t.getFullYear()}-${pad(t.getMonth() + 1)}-${pad(t.getDate())} ${pad(t.getHours())}:${pad(t.getMinutes())}:${pad(t.getSeconds())}`;
}

/** The reverse of formatTime; also RFC 3339 and unix seconds. Null when empty, NaN when wrong. */
export function parseTime(text) {
  const plain = text.trim();
  if (!plain) return null;
  if (/^\d{9,11}(\.\d+)?$/.test(plain)) return Number(plain) * 1000;
  return new Date(/^\d{4}-\d\d-\d\d \d/.test(plain) ? plain.replace(" ", "T") : plain).getTime();
}

export function formatNumber(value) {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "NaN" : value > 0 ? "+Inf" : "-Inf";
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e15 || size < 1e-4)) return value.toExponential(3);
  return String(Number(value.toPrecision(size >= 1e6 ? 10 : 6)));
}

/** Short form for axes: 1.2k, 3M. */
export function formatTick(value, step) {
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

export const numberOf = (text) => (text === "+Inf" ? Infinity : text === "-Inf" ? -Infinity : Number(text));

const plainName = /^[a-zA-Z_:][a-zA-Z0-9_:]*$/;

/** A series as PromQL writes it, as nodes. */
export function seriesNodes(metric) {
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

export const seriesText = (metric) => el("span", {}, seriesNodes(metric)).textContent;

export function histogramText(histogram) {
  const buckets = (histogram.buckets ?? []).map(([bounds, lower, upper, count]) => {
    const open = bounds === 1 || bounds === 3 ? "[" : "(";
    const close = bounds === 0 || bounds === 3 ? "]" : ")";
    return `${open}${lower}, ${upper}${close}: ${count}`;
  });
  return [`count ${histogram.count}, sum ${histogram.sum}`, ...buckets].join("\n");
}

/** A failed call. A parse error shows the query with the place marked. */
export function errorNote(error, query) {
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

/** What to do when light turns dark. */
export const themeListeners = [];

export const isDark = () => document.documentElement.classList.contains("dark");

export function theme(dark) {
  document.documentElement.classList.toggle("dark", dark);
  for (const listener of themeListeners) listener();
}
