// Line charts on a canvas.

import { el, formatNumber, formatTick, formatTime, isDark, pad, seriesNodes, themeListeners } from "./base.js";

const COLORS = ["#2563eb", "#d9480f", "#0d9488", "#c026d3", "#65a30d", "#b45309", "#0891b2", "#e11d48", "#7c3aed", "#4d7c0f", "#be185d", "#475569"];
const DARK_COLORS = ["#6e9bff", "#ff9457", "#3fd0bd", "#e58bf2", "#a8d64a", "#f0b352", "#4ecbe6", "#ff7b94", "#b49bff", "#c3d977", "#f58ac0", "#a9b6c8"];

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
export function chart(series, start, end, gap, zoom) {
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
