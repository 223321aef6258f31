// What stands where there is no call to show.

import { el, icon, say, setText } from "./dom.js";

/** A title ("" for none), a line, and what else there is. */
export function blank(title, line, ...more) {
  const heading = title && el("h2", { id: "detail-title" }, title);
  return el("div", { class: "empty" }, icon("wave"), heading || null, el("p", {}, line), ...more);
}

/** No call has come yet: how to make one. tcp is the port for calls, null where there is none. */
export function nothingYet({ tcp }) {
  const microphone = el("a", { class: "secondary", href: "#microphone" }, icon("mic"), "Speak into the microphone");
  if (!tcp) return blank("No calls yet", "As soon as one comes, it appears here with its words.", microphone);
  const port = tcp === 8300 ? "" : ` --port ${tcp}`;
  return blank(
    "No calls yet",
    "As soon as a PBX sends audio to this server, the call appears here with its words. To see one now, play the sample call on the server's machine, in the folder of aii:",
    command(`.venv/bin/aii stream assets/sample_call.wav --call-id hello${port}`),
    microphone,
  );
}

function command(line) {
  const said = el("span", { class: "unseen" }, "Copy the command");
  const copy = el("button", { class: "quiet", title: "Copy" }, icon("copy"), said);
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(line);
      say("Copied");
      copy.title = "Copied";
      copy.classList.add("done");
    } catch {
      setText(said, "The browser does not allow to copy"); // pages that are not secure may not
      say(said.textContent);
    }
  });
  return el("div", { class: "command" }, el("code", {}, line), copy);
}
