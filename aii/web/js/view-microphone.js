// The microphone on both endpoints at once, with the latencies side by side.

import { Chart } from "./chart.js";
import { byId, el, icon, onNextFrame, say, setText } from "./dom.js";
import { Endpoint } from "./endpoint.js";
import { clock, count, kilohertz, milliseconds } from "./format.js";
import { add, emptySeries, summary, verdict } from "./latency.js";
import { microphones, obstacle, play, record, SourceError } from "./source.js";
import { commonStart } from "./transcript.js";

const NAMES = ["standard", "optimized"];
const ROWS = 40; // of the table
const RATE = 16000;

/** The view; it is idle, "starting", "running" or "ending". */
export class MicrophoneView {
  constructor() {
    this.state = "idle";
    this.objective = null;
    this.chart = new Chart(byId("chart"));
    this.draw = onNextFrame(() => this.render());
    this.reset();
    byId("record").addEventListener("click", () => this.toggle());
    byId("play").addEventListener("click", () => byId("file").click());
    byId("file").addEventListener("change", ({ target }) => {
      const [file] = target.files;
      target.value = "";
      if (file && this.state === "idle") this.start((handlers) => play({ ...handlers, file }), file.name);
    });
    navigator.mediaDevices?.addEventListener?.("devicechange", () => this.devices());
    this.devices();
    const problem = obstacle();
    if (problem) this.problem(problem);
    byId("record").disabled = problem !== "";
    this.render();
  }

  reset() {
    this.series = { standard: emptySeries(), optimized: emptySeries() };
    this.texts = { standard: "", optimized: "" };
    this.heard = 0; // samples sent
    this.early = []; // samples from before the endpoints were there
  }

  get seconds() {
    return this.heard / RATE;
  }

  async devices() {
    const chosen = byId("device").value;
    const found = await microphones();
    const named = found.filter((device) => device.label);
    byId("device-field").hidden = named.length < 2;
    byId("device").replaceChildren(
      el("option", { value: "" }, "Default"),
      ...named.filter((device) => device.deviceId !== "default").map((device) => el("option", { value: device.deviceId }, device.label)),
    );
    if (named.some((device) => device.deviceId === chosen)) byId("device").value = chosen;
  }

  toggle() {
    if (this.state === "idle") {
      const deviceId = byId("device").value;
      this.start((handlers) => record({ ...handlers, deviceId }), "the microphone");
    } else if (this.state === "running") {
      this.stop();
    }
  }

  async start(open, name) {
    this.state = "starting";
    this.problem("");
    this.reset();
    this.render();
    const handlers = {
      onSamples: (samples) => this.samples(samples),
      onEnded: () => this.stop(),
    };
    try {
      this.source = await open(handlers);
    } catch (error) {
      this.state = "idle";
      this.problem(error instanceof SourceError ? error.message : `Cannot use ${name}: ${error.message}`);
      this.render();
      return;
    }
    this.endpoints = Object.fromEntries(NAMES.map((endpoint) => [endpoint, this.connect(endpoint)]));
    this.state = "running";
    for (const samples of this.early.splice(0)) this.samples(samples);
    this.devices();
    this.render();
  }

  connect(name) {
    return new Endpoint(`ws/${name}`, {
      onUpdate: (update) => this.updated(name, update),
      onState: (state, message) => {
        footer(name, { failed: message, ending: "Waiting for the last words" }[state] ?? null, state === "failed");
        if (state === "failed" && this.state === "running" && NAMES.every((n) => this.endpoints[n].failed)) this.stop();
      },
    });
  }

  samples(samples) {
    if (samples.length === 0) return;
    if (this.state === "starting") {
      this.early.push(samples); // the device is faster than we are
      return;
    }
    if (this.state === "idle") return;
    // While it is "ending", what the device still had comes before the endpoints are told.
    this.heard += samples.length;
    for (const name of NAMES) this.endpoints[name].send(samples);
    let power = 0;
    for (const sample of samples) power += sample * sample;
    this.level(Math.sqrt(power / samples.length));
    this.draw();
  }

  updated(name, { text, latency }) {
    this.series[name] = add(this.series[name], { t: this.seconds, ms: latency });
    said(name, this.texts[name], text);
    this.texts[name] = text;
    this.draw();
  }

  async stop() {
    if (this.state !== "running") return;
    this.state = "ending";
    this.render();
    await this.source.stop();
    this.level(0);
    await Promise.all(NAMES.map((name) => this.endpoints[name].end()));
    this.state = "idle";
    this.render();
    say(byId("verdict").textContent);
  }

  level(rms) {
    // -60 dB is the left end, full scale the right one.
    const share = rms > 0 ? Math.min(1, Math.max(0, 1 + (20 * Math.log10(rms)) / 60)) : 0;
    byId("level").setAttribute("aria-valuenow", Math.round(share * 100));
    byId("level").firstElementChild.style.transform = `scaleX(${share.toFixed(3)})`;
  }

  problem(text) {
    byId("recorder-problem").hidden = text === "";
    setText(byId("recorder-problem"), text);
  }

  render() {
    const { state } = this;
    const running = state === "running";
    const button = byId("record");
    button.setAttribute("aria-pressed", String(running));
    button.disabled = state === "starting" || state === "ending" || obstacle() !== "";
    const label = { idle: "Start microphone", starting: "Starting", running: "Stop", ending: "Last words" }[state];
    if (button.dataset.label !== label) {
      button.dataset.label = label;
      button.replaceChildren(icon(running ? "stop" : "mic"), el("span", {}, label));
    }
    byId("play").disabled = byId("device").disabled = state !== "idle";
    setText(byId("recorder-text"), this.status());
    const counting = state === "running" || state === "ending";
    setText(byId("recorder-time"), counting ? clock(this.seconds) : "");
    for (const name of NAMES) this.figures(name);
    this.chart.update({ ...this.series, objective: this.objective, now: this.seconds });
    setText(byId("verdict"), verdict(this.series.standard, this.series.optimized));
    if (byId("chart-table").open) this.table();
  }

  status() {
    if (this.state === "idle") {
      return this.seconds > 0 ? `${clock(this.seconds)} heard. Start again for new words.` : "Speak, and read along on both endpoints at once.";
    }
    if (this.state === "starting") return "Asking for the microphone";
    return `${this.source.label}, ${kilohertz(this.source.rate)} to 16 kHz`;
  }

  figures(name) {
    const { last, median, p95, total } = summary(this.series[name]);
    setText(byId(name).querySelector(".latency b"), last === null ? "–" : milliseconds(last));
    if (total > 0) footer(name, `Median ${milliseconds(median)} · p95 ${milliseconds(p95)} · ${count(total, "update")}`);
    else said(name, this.texts[name], this.texts[name], this.state);
  }

  table() {
    const times = (series) => series.points.slice(-ROWS);
    const [a, b] = NAMES.map((name) => times(this.series[name]));
    const rows = Array.from({ length: Math.max(a.length, b.length) }, (_, i) =>
      el("tr", {}, ...[(a[i] ?? b[i]).t.toFixed(1), ...[a[i], b[i]].map((p) => (p ? milliseconds(p.ms) : ""))].map((cell) => el("td", {}, cell))),
    );
    const head = el("tr", {}, ...["Audio (s)", "Standard", "Optimized"].map((title) => el("th", { scope: "col" }, title)));
    byId("chart-table").querySelector(".scroll").replaceChildren(el("table", {}, el("thead", {}, head), el("tbody", {}, ...rows)));
  }
}

/** The footer of a card; a failure stays until the next start. */
function footer(name, text, bad = null) {
  const line = byId(name).querySelector("footer");
  if (bad === null && line.classList.contains("bad")) return;
  line.classList.toggle("bad", bad === true);
  if (text !== null) setText(line, text);
}

function said(name, before, now, state = "") {
  const line = byId(name).querySelector(".said");
  const [old, words] = [before, now].map((text) => text.trim().split(/\s+/).filter(Boolean));
  line.classList.toggle("none", words.length === 0);
  if (words.length === 0) {
    setText(line, state === "running" ? "Listening" : "What you say appears here.");
    return;
  }
  const same = commonStart(old, words);
  const fresh = words.slice(same).flatMap((word) => [" ", el("span", { class: "fresh" }, word)]);
  line.replaceChildren(words.slice(0, same).join(" "), ...fresh);
}
