// The machine: its load, and whether it keeps its latency objective.

import { getJson } from "./api.js";
import { sparkline } from "./chart.js";
import { byId, setText } from "./dom.js";
import { bytes, milliseconds, percent, uptime } from "./format.js";

const EVERY = 2000; // ms
const KEPT = 90; // values of the small line: three minutes

/** Asks the server every 2 s; onLoad(load) with each answer, onError(error) where there is none. */
export class MachineView {
  constructor({ onLoad, onError }) {
    this.onLoad = onLoad;
    this.onError = onError;
    this.history = [];
    this.timer = 0;
    this.open = null; // calls, where somebody knows better than the last answer
    this.load = null;
    document.addEventListener("visibilitychange", () => !document.hidden && this.ask());
    this.ask();
  }

  async ask() {
    clearTimeout(this.timer);
    let denied = false;
    try {
      const load = await getJson("load");
      this.show(load);
      this.onLoad(load);
    } catch (error) {
      denied = error.denied === true; // then ask() is called once there is a token
      byId("machine").toggleAttribute("data-stale", true);
      this.onError(error);
    }
    clearTimeout(this.timer); // somebody else may have asked meanwhile
    if (!document.hidden && !denied) this.timer = setTimeout(() => this.ask(), EVERY);
  }

  /** Open calls as the page's list has them, which is there before the next answer; null: unknown. */
  listed(open) {
    if (open === this.open) return;
    this.open = open;
    if (this.load) this.calls();
  }

  calls() {
    const { calls = null, max_calls: most = 0 } = this.load;
    const open = this.open ?? calls;
    tile("calls", String(open ?? "–"), most ? `of ${most}` : "", most && open >= most ? "bad" : "");
  }

  show(load) {
    byId("machine").toggleAttribute("data-stale", false);
    const { p50, p95 } = load.latency ?? {};
    const goal = load.objective ?? null;
    const late = goal !== null && p95 != null ? p95 / goal : 0;
    tile("latency", p95 == null ? "–" : milliseconds(p95 * 1000), latencyNote(p50, goal), late > 1 ? "bad" : late > 0.8 ? "warn" : "");
    this.history = [...this.history, p95 ?? null].slice(-KEPT);
    sparkline(byId("tile-latency").querySelector("svg"), this.history, Math.max(goal ?? 0, ...this.history) || 1);
    const within = load.within ?? null;
    tile("within", within === null ? "–" : percent(within), load.skipped ? `${load.skipped} skipped` : "none skipped", within !== null && within < 0.9 ? "bad" : "");
    this.load = load;
    this.calls();
    tile("queue", String(load.queue ?? "–"), load.queue === 1 ? "window waits" : "windows wait", load.queue > 2 * Math.max(load.calls, 4) ? "warn" : "");
    tile("cpu", load.cpu == null ? "–" : percent(load.cpu), load.device ?? "", load.cpu > 0.9 ? "warn" : "");
    tile("memory", load.memory ? bytes(load.memory) : "–", "", "");
    const about = [`aii ${load.version ?? ""}`.trim(), load.model && `model ${load.model}`, load.device, load.uptime != null && `up ${uptime(load.uptime)}`];
    setText(byId("foot"), about.filter(Boolean).join(" · "));
  }
}

function latencyNote(p50, goal) {
  const parts = [p50 == null ? "no window yet" : `median ${milliseconds(p50 * 1000)}`];
  if (goal !== null) parts.push(`objective ${goal} s`);
  return parts.join(" · ");
}

function tile(name, value, note, level) {
  const box = byId(`tile-${name}`);
  setText(box.querySelector("[data-value]"), value);
  setText(box.querySelector("[data-note]"), note);
  box.dataset.level = level;
}

