// Puts the page together: what the server says goes to the views, what the user does to the server.

import { getJson } from "./api.js";
import { conversations, emptyState, openCalls, reduce } from "./calls.js";
import { byId, el, icon, onNextFrame, setText } from "./dom.js";
import { follow } from "./feed.js";
import { ListView } from "./view-list.js";
import { MachineView } from "./view-machine.js";
import { MicrophoneView } from "./view-microphone.js";
import { TokenView } from "./view-token.js";
import { TranscriptView } from "./view-transcript.js";

let state = emptyState();
let chosen = null; // name of the call shown
let byHand = false; // it was chosen by the user, so it stays
let known = false; // the server's list has come
let live = false; // and is kept up to date
let lostAt = 0; // when the next attempt to connect is due
let ticking = 0; // the timer that counts down to it

const narrow = matchMedia("(max-width: 860px)");
const views = ["calls", "microphone"];

const list = new ListView({
  onChoose: (name) => {
    location.hash = `call=${encodeURIComponent(name)}`;
  },
  onSearch: () => draw(),
});
const transcript = new TranscriptView({
  onBack: () => {
    location.hash = "calls";
    list.button(chosen)?.focus();
  },
  complete,
});
const microphone = new MicrophoneView();
const tokens = new TokenView({
  onAccepted: () => {
    feed.retry();
    machine.ask();
  },
});
const machine = new MachineView({
  onLoad: (load) => {
    microphone.objective = load.objective ? load.objective * 1000 : null;
  },
  onError: (error) => error.denied && tokens.ask(),
});
const feed = follow({
  onMessage: (message) => {
    state = reduce(state, message);
    if (message.type === "snapshot") {
      known = true;
      fill([...state.calls.values()]);
    }
    draw();
  },
  onState: connection,
});

const draw = onNextFrame(() => {
  const all = conversations(state);
  if (!byHand || !all.some((conv) => conv.name === chosen)) {
    byHand = byHand && !known;
    if (!byHand && !narrow.matches) chosen = all[0]?.name ?? null;
  }
  const shown = all.find((conv) => conv.name === chosen) ?? null;
  list.update(state, shown?.name ?? null, known);
  machine.listed(known && live ? openCalls(state) : null);
  transcript.update(shown, list.terms);
  if (!shown) byId("detail").replaceChildren(nothingYet());
  byId("view-calls").classList.toggle("chosen", narrow.matches && (shown !== null || (known && all.length === 0)));
  document.body.classList.toggle("reading", narrow.matches && shown !== null && !byId("view-calls").hidden);
});

/** What stands beside an empty list. */
function nothingYet() {
  if (!known) return el("div", { class: "empty" }, icon("wave"), el("p", {}, "Waiting for the server."));
  const command = "aii stream assets/sample_call.wav --call-id hello";
  const copy = el("button", { class: "quiet" }, icon("copy"), el("span", { class: "unseen" }, "Copy the command"));
  copy.addEventListener("click", () => navigator.clipboard?.writeText(command));
  return el(
    "div",
    { class: "empty" },
    icon("wave"),
    el("h2", { id: "detail-title" }, "No calls yet"),
    el("p", {}, "As soon as a PBX sends audio to this server, the call appears here with its words. To see one now, play the sample call:"),
    el("div", { class: "command" }, el("code", {}, command), copy),
  );
}

/** Ask for the finals that the server's list left out, of the call that is shown first. */
async function fill(calls) {
  const wanted = calls.filter((call) => call.earlier > 0);
  wanted.sort((a, b) => (b.name === chosen) - (a.name === chosen));
  for (const call of wanted) {
    const leg = call.id === call.name && call.leg ? `?leg=${encodeURIComponent(call.leg)}` : "";
    try {
      const full = await getJson(`calls/${encodeURIComponent(call.id)}${leg}`);
      state = reduce(state, { type: "full", calls: full.legs ?? [full] });
    } catch {
      continue; // what is on the page is still worth having
    }
    draw();
  }
}

/** The conversation with all finals of its calls. */
async function complete(conv) {
  await fill(conv.legs);
  return conversations(state).find((other) => other.name === conv.name) ?? conv;
}

function connection({ state: now, seconds, message, attempt }) {
  if (live !== (now === "live")) {
    live = now === "live";
    draw();
  }
  const words = { connecting: "Connecting", live: "Live", lost: "Offline", denied: "No access" };
  byId("link").dataset.state = now;
  setText(byId("link").querySelector("span"), words[now]);
  clearInterval(ticking);
  if (now === "denied") tokens.ask();
  if (now === "lost") {
    lostAt = Date.now() + seconds * 1000;
    banner();
    ticking = setInterval(banner, 1000);
  } else if (now === "denied") {
    showBanner(message || "The server wants a token.", "Enter it", () => tokens.ask());
  } else if (now === "live" || !attempt) {
    byId("banner").hidden = true;
  }
}

function banner() {
  const left = Math.max(0, Math.round((lostAt - Date.now()) / 1000));
  showBanner(`The connection to the server is lost. Trying again ${left ? `in ${left} s` : "now"}.`, "Try now", () => feed.retry());
}

function showBanner(text, action, run) {
  const box = byId("banner");
  if (box.hidden || !box.firstChild) {
    box.replaceChildren(el("span"), el("button", { class: "secondary" }));
    box.hidden = false;
  }
  setText(box.firstChild, text);
  setText(box.lastChild, action);
  box.lastChild.onclick = run;
}

/** The address says what is shown: #calls, #call=ID or #microphone. */
function route() {
  const [name, value] = location.hash.slice(1).split("=");
  const view = name === "microphone" ? "microphone" : "calls";
  for (const other of views) {
    byId(`view-${other}`).hidden = other !== view;
    const tab = byId(`tab-${other}`);
    tab.setAttribute("aria-selected", String(other === view));
    tab.tabIndex = other === view ? 0 : -1;
  }
  document.body.classList.toggle("fits", view === "calls");
  byHand = name === "call" && Boolean(value);
  chosen = byHand ? decodeURIComponent(value) : narrow.matches ? null : chosen;
  document.title = byHand ? `${chosen} – aii` : "aii – calls to text";
  draw();
}

const THEMES = ["system", "light", "dark"];

function theme(next) {
  const root = document.documentElement;
  const now = next ?? root.dataset.theme ?? "system";
  if (now === "system") delete root.dataset.theme;
  else root.dataset.theme = now;
  try {
    localStorage.setItem("aii-theme", now);
  } catch {
    // it lasts until the page is closed
  }
  const said = now === "system" ? "as the system" : now;
  setText(byId("theme").querySelector(".unseen"), `Theme: ${said}`);
  byId("theme").title = `Theme: ${said}`;
  return now;
}

byId("theme").addEventListener("click", () => theme(THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length]));
for (const [i, name] of views.entries()) {
  const tab = byId(`tab-${name}`);
  tab.addEventListener("click", () => {
    location.hash = name;
  });
  tab.addEventListener("keydown", ({ key }) => {
    if (key !== "ArrowRight" && key !== "ArrowLeft") return;
    const other = views[(i + 1) % views.length];
    location.hash = other;
    byId(`tab-${other}`).focus();
  });
}
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, select, textarea, dialog");
  if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  if (byId("view-calls").hidden) location.hash = "calls";
  setTimeout(() => byId("search").focus(), 0);
});
window.addEventListener("hashchange", route);
narrow.addEventListener("change", route);
theme();
route();
