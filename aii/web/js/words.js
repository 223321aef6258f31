// Times of words: under the mouse, under a finger, and by the arrow keys.

import { byId } from "./dom.js";

/** Shows the times of the word that is pointed at in a transcript, one after another. */
export class WordCursor {
  constructor() {
    this.tip = byId("tip");
    this.at = null;
    document.addEventListener("scroll", () => this.hide(), true);
  }

  attach(scroller) {
    this.scroller = scroller;
    this.at = null;
    scroller.addEventListener("pointerover", ({ target }) => this.show(target.closest?.(".word")));
    scroller.addEventListener("pointerleave", () => this.show(this.at));
    scroller.addEventListener("click", ({ target }) => this.show(target.closest?.(".word")));
    scroller.addEventListener("keydown", (event) => this.key(event));
    scroller.addEventListener("blur", () => this.leave());
  }

  /** The rows have changed: the word may be gone. */
  refresh() {
    if (this.at && !this.at.isConnected) this.leave();
    if (this.shown && !this.shown.isConnected) this.hide();
  }

  key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "Escape") return void this.leave();
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    const words = [...this.scroller.querySelectorAll(".word")];
    if (words.length === 0) return;
    const place = this.at ? words.indexOf(this.at) + step : step > 0 ? 0 : words.length - 1;
    const word = words[Math.min(Math.max(place, 0), words.length - 1)];
    this.at?.classList.remove("at");
    this.at = word;
    word.classList.add("at");
    word.scrollIntoView({ block: "nearest" });
    requestAnimationFrame(() => this.show(word));
  }

  show(word) {
    if (!word) return void this.hide();
    this.shown = word;
    this.tip.textContent = word.dataset.times;
    this.tip.hidden = false;
    const box = word.getBoundingClientRect();
    const own = this.tip.getBoundingClientRect();
    const left = Math.min(Math.max(8, box.left + box.width / 2 - own.width / 2), innerWidth - own.width - 8);
    const above = box.top - own.height - 8;
    this.tip.style.left = `${left}px`;
    this.tip.style.top = `${above > 4 ? above : box.bottom + 8}px`;
  }

  hide() {
    this.shown = null;
    this.tip.hidden = true;
  }

  leave() {
    this.at?.classList.remove("at");
    this.at = null;
    this.hide();
  }
}
