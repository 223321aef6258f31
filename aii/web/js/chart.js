// The chart of latencies: two lines over the last minute, with a cross-hair for mouse and keys.

import { byId, el, svgEl } from "./dom.js";
import { axisTime, milliseconds } from "./format.js";
import { path, ticks } from "./latency.js";

const SPANS = { wide: 60, narrow: 30 }; // seconds shown
const NARROW = 520; // pixels
const EDGE = { left: 54, right: 14, top: 10, bottom: 24 };
const NAMES = { standard: "Standard", optimized: "Optimized" };

/** Draws { standard, optimized } series and the objective (ms or null) into a figure. */
export class Chart {
  constructor(figure) {
    this.figure = figure;
    this.svg = svgEl("svg", { role: "img", tabindex: "0", "aria-label": "Latency per update of both endpoints over the last minute" });
    this.nothing = el("p", { class: "nothing" }, "Latencies appear here as soon as there are words to time.");
    figure.replaceChildren(this.svg, this.nothing);
    this.data = { standard: [], optimized: [] };
    this.objective = null;
    this.cross = null;
    new ResizeObserver(() => this.draw()).observe(figure);
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => this.uncross());
    this.svg.addEventListener("keydown", (event) => this.key(event));
    this.svg.addEventListener("blur", () => this.uncross());
  }

  update({ standard, optimized, objective, now }) {
    this.now = now;
    const recent = (series) => series.points.filter((p) => p.t >= now - SPANS.wide - 2);
    this.data = { standard: recent(standard), optimized: recent(optimized) };
    this.objective = objective;
    this.nothing.hidden = this.data.standard.length + this.data.optimized.length > 0;
    this.draw();
  }

  draw() {
    const { width, height } = this.svg.getBoundingClientRect();
    if (width === 0) return;
    const points = [...this.data.standard, ...this.data.optimized];
    const most = Math.max(10, ...points.map((p) => p.ms));
    // The objective is worth showing only where it does not flatten the lines.
    const goal = this.objective && this.objective <= most * 2.5 ? this.objective : null;
    const marks = ticks(Math.max(most, goal ?? 0) * 1.02);
    const span = width < NARROW ? SPANS.narrow : SPANS.wide;
    const end = Math.max(span, this.now ?? 0);
    this.x = (t) => EDGE.left + ((t - end + span) / span) * (width - EDGE.left - EDGE.right);
    this.y = (ms) => height - EDGE.bottom - (ms / marks.at(-1)) * (height - EDGE.top - EDGE.bottom);
    const parts = [...this.grid(marks, width), ...this.times(end - span, end, height)];
    if (goal) {
      const y = this.y(goal);
      parts.push(svgEl("line", { class: "goal", x1: EDGE.left, x2: width - EDGE.right, y1: y, y2: y }));
    }
    for (const name of ["standard", "optimized"]) parts.push(...this.line(name));
    if (this.cross !== null) parts.push(svgEl("line", { class: "cross", x1: this.x(this.cross), x2: this.x(this.cross), y1: EDGE.top, y2: height - EDGE.bottom }));
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.svg.replaceChildren(...parts);
  }

  grid(marks, width) {
    const group = svgEl("g", { class: "grid" });
    for (const mark of marks) {
      const y = this.y(mark);
      group.append(svgEl("line", { x1: EDGE.left, x2: width - EDGE.right, y1: y, y2: y }));
      const label = svgEl("text", { x: EDGE.left - 8, y: y + 4, "text-anchor": "end" });
      label.textContent = axisTime(mark);
      group.append(label);
    }
    return [group];
  }

  times(start, end, height) {
    const found = [];
    const step = (end - start) / 4 > 10 ? 15 : 10;
    for (let t = Math.ceil(start / step) * step; t <= end; t += step) {
      const label = svgEl("text", { x: this.x(t), y: height - 4, "text-anchor": "middle" });
      label.textContent = `${t} s`;
      found.push(label);
    }
    return found;
  }

  line(name) {
    const points = this.data[name].filter((p) => this.x(p.t) >= EDGE.left - 1);
    if (points.length === 0) return [];
    const last = points.at(-1);
    return [
      svgEl("path", { class: `series ${name}`, d: path(points, this.x, this.y), "data-points": points.length }),
      svgEl("circle", { class: `end ${name}`, cx: this.x(last.t), cy: this.y(last.ms), r: 4.5 }),
    ];
  }

  point(event) {
    const box = this.svg.getBoundingClientRect();
    const all = [...this.data.standard, ...this.data.optimized];
    if (all.length === 0) return;
    const at = event.clientX - box.left;
    this.show(all.reduce((a, b) => (Math.abs(this.x(b.t) - at) < Math.abs(this.x(a.t) - at) ? b : a)).t);
  }

  key(event) {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (event.key === "Escape") this.uncross();
    if (step === undefined) return;
    event.preventDefault();
    const times = this.data.optimized.map((p) => p.t);
    if (times.length === 0) return;
    const at = this.cross === null ? times.length : times.findIndex((t) => t >= this.cross);
    this.show(times[Math.min(Math.max((at < 0 ? times.length : at) + step, 0), times.length - 1)]);
  }

  show(t) {
    this.cross = t;
    this.draw();
    const lines = Object.entries(NAMES).map(([name, said]) => {
      const before = this.data[name].filter((p) => p.t <= t + 0.3).at(-1);
      return before ? `${said} ${milliseconds(before.ms)}` : null;
    });
    const tip = byId("tip");
    tip.textContent = [`at ${t.toFixed(1)} s`, ...lines.filter(Boolean)].join(" · ");
    tip.hidden = false;
    const box = this.svg.getBoundingClientRect();
    const left = box.left + this.x(t) - tip.offsetWidth / 2;
    tip.style.left = `${Math.min(Math.max(8, left), innerWidth - tip.offsetWidth - 8)}px`;
    tip.style.top = `${Math.max(4, box.top - 18)}px`;
  }

  uncross() {
    if (this.cross === null) return;
    this.cross = null;
    byId("tip").hidden = true;
    this.draw();
  }
}

/** A small line without axes; values may be null. */
export function sparkline(svg, values, most) {
  const known = values.map((value, i) => ({ t: i, ms: value })).filter((p) => p.ms !== null);
  svg.replaceChildren();
  if (known.length < 2) return;
  svg.setAttribute("viewBox", `0 0 ${values.length - 1} 100`);
  const line = path(known, (t) => t, (ms) => 92 - (Math.min(ms, most) / most) * 72);
  const [first, last] = [known[0].t, known.at(-1).t];
  svg.append(svgEl("path", { class: "area", d: `${line}L${last} 100L${first} 100Z` }), svgEl("path", { d: line }));
}
