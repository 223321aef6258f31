// One call: its words as they come, both legs side by side, their times, downloads.

import { byId, download, el, icon, marked, onNextFrame, sameParts, say } from "./dom.js";
import { FORMATS, fileName } from "./export.js";
import { clock, ending, languageName, span } from "./format.js";
import { highlight } from "./search.js";
import { commonStart, rows } from "./transcript.js";
import { WordCursor } from "./words.js";

const UNSURE = 0.4; // words below this probability are marked
const NEAR = 80; // pixels from the end at which the view still follows

/** The chosen call; onBack() leaves it, complete(conv) gives it with all its finals. */
export class TranscriptView {
  constructor({ onBack, complete }) {
    this.root = byId("detail");
    this.complete = complete;
    this.onBack = onBack;
    this.conv = null;
    this.terms = [];
    this.drawn = new Map(); // row key -> { signature, node, words }
    this.draw = onNextFrame(() => this.render());
    this.cursor = new WordCursor();
  }

  /** Show this conversation (null: none is chosen), its words marked where the terms are; live
   * says whether it is kept up to date. */
  update(conv, terms, live) {
    const same = conv && this.conv && sameParts([terms.join(" "), live, ...conv.legs], [this.terms.join(" "), this.live, ...this.conv.legs]);
    if (same && conv.name === this.conv.name) return; // another call's words have come
    this.live = live;
    if (conv?.name !== this.conv?.name) this.build(conv);
    const before = this.conv;
    this.conv = conv;
    this.terms = terms;
    if (conv && before?.name === conv.name) this.announce(before, conv);
    this.draw();
  }

  build(conv) {
    this.drawn.clear();
    this.following = true;
    if (!conv) {
      this.root.replaceChildren();
      return;
    }
    this.title = el("span", { id: "detail-title", title: conv.name }, conv.name);
    this.state = el("span", { class: "state" });
    this.meta = el("p");
    this.legs = el("div", { class: "legs", "aria-hidden": "true" });
    this.body = el("div", { class: "lines" });
    this.nothing = el("div", { class: "empty", hidden: true }, icon("wave"), el("p"));
    this.scroller = el(
      "div",
      { class: "transcript", tabindex: "0", role: "log", "aria-label": "Transcript", "aria-live": "off", "aria-describedby": "tip" },
      this.legs,
      this.body,
    );
    this.follow = el("button", { class: "secondary follow", hidden: true }, icon("down"), "Latest words");
    this.follow.addEventListener("click", () => this.toEnd());
    this.scroller.addEventListener("scroll", () => this.scrolled());
    this.resized?.disconnect();
    this.resized = new ResizeObserver(() => this.following && this.toEnd());
    this.resized.observe(this.scroller);
    this.cursor.attach(this.scroller);
    const back = el("button", { class: "quiet back", on: { click: this.onBack } }, icon("back"), el("span", { class: "unseen" }, "Back to the list"));
    this.root.replaceChildren(
      el("header", {}, back, el("hgroup", {}, el("h2", {}, this.title, this.state), this.meta), this.downloads()),
      this.nothing,
      this.scroller,
      this.follow,
    );
  }

  downloads() {
    const buttons = Object.keys(FORMATS).map((format) =>
      el(
        "button",
        { class: "secondary", data: { format }, "aria-label": `Download as ${format.toUpperCase()}`, on: { click: () => this.save(format) } },
        icon("download"),
        format.toUpperCase(),
      ),
    );
    return el("div", { class: "downloads", role: "group", "aria-label": "Download" }, ...buttons);
  }

  async save(format) {
    const conv = await this.complete(this.conv);
    const { write, type } = FORMATS[format];
    download(fileName(conv, format), write(conv), type);
    say(`${fileName(conv, format)} was downloaded`);
  }

  render() {
    const { conv } = this;
    if (!conv) return;
    const list = rows(conv);
    const two = conv.legs.length > 1;
    this.root.classList.toggle("two", two);
    const known = !conv.live || this.live;
    this.state.className = `state ${conv.live && known ? "live" : ""}`;
    this.state.textContent = conv.live ? (known ? (conv.speaking ? "Speaking" : "Live") : "Not connected") : "Ended";
    this.meta.textContent = metaLine(conv);
    this.legs.replaceChildren(...(two ? conv.legs.map((leg, i) => el("span", { class: `leg-${i}` }, leg.leg || leg.id)) : []));
    const final = list.some((row) => row.kind === "final");
    for (const button of this.root.querySelectorAll("[data-format]")) button.disabled = !final;
    this.nothing.hidden = list.length > 0;
    this.scroller.hidden = list.length === 0;
    this.nothing.querySelector("p").textContent = conv.live ? "The call is open. Its words appear here as they are said." : "Nothing was said in this call.";
    this.place(list, two);
    if (this.following) this.toEnd();
    else this.follow.hidden = false;
  }

  /** Put the rows in place; those that did not change stay as they are. */
  place(list, two) {
    const nodes = list.map((row) => this.row(row, two));
    const wanted = new Set(nodes);
    for (const node of [...this.body.children]) if (!wanted.has(node)) node.remove();
    let next = this.body.firstChild;
    for (const node of nodes) {
      if (node === next) next = next.nextSibling;
      else this.body.insertBefore(node, next);
    }
    const keys = new Set(list.map((row) => row.key));
    for (const key of this.drawn.keys()) if (!keys.has(key)) this.drawn.delete(key);
    this.cursor.refresh();
  }

  row(row, two) {
    const signature = JSON.stringify([row.text, row.start, row.end, row.words.length, row.last, this.terms, two]);
    const known = this.drawn.get(row.key);
    if (known?.signature === signature) return known.node;
    const said = row.kind === "final" || row.kind === "partial";
    const texts = row.words.map((word) => word.text);
    const same = row.kind === "partial" ? commonStart(known?.words ?? [], this.split(texts)) : Infinity;
    const line = el("p", {}, two && said && el("span", { class: "leg-name" }, row.leg));
    if (said) line.append(...this.words(row, same));
    else line.append(...marked(highlight(row.text, this.terms)));
    if (row.kind === "partial" && row.last) line.append(el("span", { class: "tag" }, "may still change"));
    const classes = ["row", said ? row.kind : `note ${row.kind}`, `leg-${Math.min(row.column, 1)}`];
    if (row.kind === "error" || row.lost) classes.push("bad");
    const node = el("div", { class: classes.join(" ") }, el("time", { title: span(row) }, clock(row.start)), line);
    this.drawn.set(row.key, { signature, node, words: this.split(texts) });
    return node;
  }

  split(texts) {
    return texts.join("").trim().split(/\s+/);
  }

  words(row, same) {
    let place = 0;
    return row.words.flatMap((word, i) => {
      const text = i === 0 ? word.text.trimStart() : word.text;
      // Without times of words, each word of the text still appears by itself.
      return (text.match(/\s*\S+/g) ?? []).flatMap((part) => {
        const gap = /^\s/.test(part) ? [" "] : [];
        const classes = ["word"];
        if (place >= same) classes.push("fresh");
        if (!word.whole && word.probability != null && word.probability < UNSURE) classes.push("unsure");
        place += 1;
        const times = word.whole ? { start: row.start, end: row.end } : word;
        return [...gap, el("span", { class: classes.join(" "), data: { times: span(times) } }, ...marked(highlight(part.trim(), this.terms)))];
      });
    });
  }

  scrolled() {
    const { scrollTop, scrollHeight, clientHeight } = this.scroller;
    this.following = scrollHeight - scrollTop - clientHeight < NEAR;
    if (this.following) this.follow.hidden = true;
  }

  toEnd() {
    this.following = true;
    this.follow.hidden = true;
    this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  /** Finals, which do not change any more, are read out. */
  announce(before, now) {
    for (const leg of now.legs) {
      const known = before.legs.find((other) => other.key === leg.key)?.finals.length ?? 0;
      const text = leg.finals.slice(known).map((final) => final.text).join("").trim();
      if (text && known <= leg.finals.length) say(leg.leg && now.legs.length > 1 ? `${leg.leg}: ${text}` : text);
    }
  }
}

function metaLine(conv) {
  const from = [conv.caller, conv.callee].filter(Boolean).join(" → ");
  const started = conv.started === null ? "" : new Date(conv.started * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "medium" });
  const why = conv.live ? "" : conv.reason;
  const parts = [from, started, `${clock(conv.duration)} of audio`, conv.language && languageName(conv.language), why && ending(why)];
  return parts.filter(Boolean).join(" · ");
}
