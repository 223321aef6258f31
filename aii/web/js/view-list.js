// The list of calls, with search.

import { conversations, lastWords, textOf } from "./calls.js";
import { byId, el, marked, onNextFrame, sameParts, setText } from "./dom.js";
import { clock, count } from "./format.js";
import { highlight, matches, terms } from "./search.js";

const TICK = 1000; // ms: how often the clocks of live calls move

/** The list; onChoose(name) when a call is chosen, onSearch(terms) when the search changes. */
export class ListView {
  constructor({ onChoose, onSearch }) {
    this.onChoose = onChoose;
    this.list = byId("list");
    this.search = byId("search");
    this.shown = [];
    this.items = new Map(); // name -> list item: they stay, so that no click meets one that is gone
    this.chosen = null;
    this.loaded = false;
    this.live = true;
    this.draw = onNextFrame(() => this.render());
    this.search.addEventListener("input", () => {
      onSearch(this.terms);
      this.draw();
    });
    this.search.addEventListener("keydown", (event) => this.fromSearch(event));
    this.list.addEventListener("keydown", (event) => this.move(event));
    setInterval(() => this.state && this.tick(), TICK);
  }

  get terms() {
    return terms(this.search.value);
  }

  /** Show this state; chosen is the name of the call beside the list, loaded whether it is known,
   * live whether it is kept up to date. */
  update(state, chosen, loaded, live) {
    this.state = state;
    this.chosen = chosen;
    this.loaded = loaded;
    this.live = live;
    this.draw();
  }

  render() {
    if (!this.state) return;
    const all = conversations(this.state);
    const wanted = this.terms;
    this.shown = all.filter((conv) => matches(wanted, searchable(conv)));
    this.place(this.shown.map((conv) => this.item(conv, wanted)));
    // What a search finds is read out; that calls come and go is not.
    byId("list-note").setAttribute("aria-live", wanted.length > 0 ? "polite" : "off");
    setText(byId("list-note"), this.note(all, wanted));
    const live = all.filter((conv) => conv.live).length;
    byId("live-count").hidden = live === 0;
    byId("live-count").replaceChildren(String(live), el("span", { class: "unseen" }, " live"));
  }

  /** Put the items into this order, moving none that stands right. */
  place(items) {
    const wanted = new Set(items);
    for (const item of [...this.list.children]) if (!wanted.has(item)) item.remove();
    const names = new Set(this.shown.map((conv) => conv.name));
    for (const name of this.items.keys()) if (!names.has(name)) this.items.delete(name);
    items.forEach((item, i) => {
      if (this.list.children[i] !== item) this.list.insertBefore(item, this.list.children[i] ?? null);
    });
  }

  note(all, wanted) {
    const live = this.shown.filter((conv) => conv.live).length;
    if (wanted.length > 0) {
      return this.shown.length === 0
        ? `Nothing among ${count(all.length, "call")} has these words.`
        : `${count(this.shown.length, "call")} of ${all.length}`;
    }
    if (all.length === 0) return this.loaded ? "No calls yet" : "";
    return `${live} live${this.live ? "" : " when last seen"}, ${all.length - live} ended`;
  }

  item(conv, wanted) {
    const { name } = conv;
    if (!this.items.has(name)) {
      const made = el("button", { data: { name }, on: { click: () => this.onChoose(name) } });
      this.items.set(name, el("li", {}, made));
    }
    const item = this.items.get(name);
    const button = item.firstChild;
    button.setAttribute("aria-current", String(name === this.chosen));
    // Of hundreds of calls few have changed since the last frame: reducers give those new values.
    const now = [wanted.join(" "), ...conv.legs];
    if (item.drawn && sameParts(now, item.drawn)) return item;
    item.drawn = now;
    const words = snippet(conv, wanted);
    const dot = ["dot", conv.live && "live", conv.speaking && "speaking"].filter(Boolean).join(" ");
    button.replaceChildren(
      el("span", { class: dot }),
      el("span", { class: "name", title: name }, ...marked(highlight(name, wanted))),
      el("span", { class: "time" }, clock(lengthOf(conv))),
      el("span", { class: "unseen" }, conv.live ? ", live" : ", ended"),
      words
        ? el("span", { class: "words" }, ...marked(highlight(words, wanted)))
        : el("span", { class: "words none" }, conv.live ? "Nothing said yet" : "Nothing was said"),
    );
    return item;
  }

  tick() {
    if (!this.live) return; // who knows whether they go on
    for (const conv of this.shown) {
      if (!conv.live) continue;
      const time = this.button(conv.name)?.querySelector(".time");
      if (time) setText(time, clock(lengthOf(conv)));
    }
  }

  button(name) {
    return this.items.get(name)?.firstChild;
  }

  fromSearch(event) {
    if (event.key === "Escape" && this.search.value) {
      event.preventDefault();
      this.search.value = "";
      this.search.dispatchEvent(new Event("input"));
    } else if (event.key === "ArrowDown" || event.key === "Enter") {
      event.preventDefault();
      this.list.querySelector("button")?.focus();
    }
  }

  move(event) {
    const step = { ArrowDown: 1, ArrowUp: -1, Home: -Infinity, End: Infinity }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    const buttons = [...this.list.querySelectorAll("button")];
    const at = buttons.indexOf(document.activeElement) + step;
    if (at < 0 && step === -1) this.search.focus();
    else buttons[Math.min(Math.max(at, 0), buttons.length - 1)]?.focus();
  }
}

function searchable(conv) {
  return [conv.name, conv.caller, conv.callee, ...conv.legs.map(textOf)];
}

/** The last words, or with a search those around what was found. */
function snippet(conv, wanted) {
  if (wanted.length > 0) {
    for (const text of conv.legs.map((leg) => textOf(leg).trim().replace(/\s+/g, " "))) {
      const parts = highlight(text, wanted);
      const hit = parts.findIndex((part) => part.hit);
      if (hit < 0) continue;
      const before = parts.slice(0, hit).reduce((n, part) => n + part.text.length, 0);
      const from = before > 36 ? text.indexOf(" ", before - 36) + 1 : 0;
      return (from > 0 ? "… " : "") + text.slice(from, from + 110);
    }
  }
  return lastWords(conv);
}

/** Seconds since the start of a live call, or the length of one that is over. */
export function lengthOf(conv) {
  if (!conv.live || conv.started === null) return conv.duration;
  return Math.max(conv.duration, Date.now() / 1000 - conv.started);
}
