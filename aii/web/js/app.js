// Puts the page together: what the server says goes to the views, what the user does to the server.

import { getJson } from "./api.js";
import { conversations, emptyState, openCalls, reduce } from "./calls.js";
import { byId, el, onNextFrame, setText } from "./dom.js";
import { follow } from "./feed.js";
import { ListView } from "./view-list.js";
import { blank, nothingYet } from "./view-empty.js";
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
let lostWhy = ""; // what the server said when it closed
let missing = null; // name of a call in the address that the server does not know
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
    draw();
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
  if (byHand && known && missing !== chosen && !all.some((conv) => conv.name === chosen)) find(chosen);
  if (!byHand && !narrow.matches) chosen = all[0]?.name ?? null;
  const shown = all.find((conv) => conv.name === chosen) ?? null;
  list.update(state, shown?.name ?? null, known, live);
  machine.listed(known && live ? openCalls(state) : null);
  transcript.update(shown, list.terms, live);
  if (!shown) showNothing();
  byId("view-calls").classList.toggle("chosen", narrow.matches && (shown !== null || lost() || (known && all.length === 0)));
  document.body.classList.toggle("reading", narrow.matches && shown !== null && !byId("view-calls").hidden);
});

/** Whether the address names a call that is not there. */
function lost() {
  return byHand && missing === chosen;
}

/** Ask the server for a call that its list does not have: it keeps more than it lists. */
async function find(name) {
  missing = name;
  try {
    const full = await getJson(`calls/${encodeURIComponent(name)}`);
    for (const call of full.legs ?? [full]) state = reduce(state, { type: "known", call });
  } catch {
    // then it is said that it is not there
  }
  draw();
}

/** What stands where no call is shown. */
function nothing() {
  if (!known) return blank("", "Waiting for the server.");
  if (lost()) {
    const all = el("a", { class: "secondary", href: "#calls" }, "All calls");
    return blank("This call is not here", `The server keeps the last calls only, and has none named ${chosen}.`, all);
  }
  return nothingYet({ tcp: machine.load?.tcp });
}

/** Say why no call is shown, unless it is said already. */
function showNothing() {
  const made = nothing();
  const there = byId("detail").firstElementChild;
  if (there?.textContent !== made.textContent) byId("detail").replaceChildren(made);
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
  byId("machine").toggleAttribute("data-stale", now !== "live");
  document.body.dataset.link = now;
  if (now === "lost") {
    lostWhy = message ?? "";
    lostAt = Date.now() + seconds * 1000;
    banner();
    ticking = setInterval(banner, 1000);
  } else if (now === "denied") {
    showBanner(message || "This server wants an access token.", "", "Enter it", () => tokens.ask());
  } else if (now === "live" || !attempt) {
    byId("banner").hidden = true;
  }
}

function banner() {
  const left = Math.max(0, Math.round((lostAt - Date.now()) / 1000));
  const why = lostWhy ? `${lostWhy[0].toUpperCase()}${lostWhy.slice(1)}.` : "The connection to the server is lost.";
  showBanner(why, `Trying again ${left ? `in ${left} s` : "now"}.`, "Try now", () => feed.retry());
}

/** What is wrong, which is read out; how long it lasts, which changes every second and is not. */
function showBanner(text, countdown, action, run) {
  const box = byId("banner");
  if (box.hidden) {
    byId("banner-do").replaceChildren(el("button", { class: "secondary" }));
    box.hidden = false;
  }
  setText(byId("banner-text"), text);
  setText(byId("banner-time"), countdown);
  const button = byId("banner-do").firstChild;
  setText(button, action);
  button.onclick = run;
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
  missing = null;
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
