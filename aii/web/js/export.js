// A conversation's finals as files: text, SubRip, JSON. No document here.

import { rows } from "./transcript.js";

const finals = (conv) => rows(conv).filter((row) => row.kind === "final");

const said = (row, conv) => (conv.legs.length > 1 && row.leg ? `${row.leg}: ${row.text}` : row.text);

/** One line per segment, with the leg before it where there are two. */
export function toText(conv) {
  return finals(conv).map((row) => `${said(row, conv)}\n`).join("");
}

/** SubRip, as aii/writers.py writes segments. */
export function toSrt(conv) {
  return finals(conv)
    .map((row, i) => {
      const text = said(row, conv).replaceAll("-->", "->");
      return `${i + 1}\n${srtTime(row.start)} --> ${srtTime(row.end)}\n${text}\n\n`;
    })
    .join("");
}

/** Seconds as 00:01:02,345. */
export function srtTime(seconds) {
  const ms = Math.max(0, Math.round(seconds * 1000));
  const part = (size, range, width) => String(Math.floor(ms / size) % range).padStart(width, "0");
  const hours = String(Math.floor(ms / 3600000)).padStart(2, "0");
  return `${hours}:${part(60000, 60, 2)}:${part(1000, 60, 2)},${part(1, 1000, 3)}`;
}

/** Everything that is known and final, with words and times. */
export function toJson(conv) {
  const iso = (seconds) => (seconds === null ? null : new Date(seconds * 1000).toISOString());
  const legs = conv.legs.map((call) => ({
    call_id: call.id,
    leg: call.leg || null,
    caller: call.caller,
    language: call.language,
    started: iso(call.started),
    ended: iso(call.ended),
    reason: call.reason,
    duration: call.duration,
    text: call.finals.map((final) => final.text).join("").trim(),
    finals: call.finals.map(({ seq, start, end, text, words, segments, reason }) => ({
      seq, start, end, text, words: words ?? [], segments: segments ?? [], reason,
    })),
    marks: call.marks,
  }));
  return `${JSON.stringify({ call: conv.name, legs }, null, 2)}\n`;
}

export const FORMATS = {
  txt: { write: toText, type: "text/plain" },
  srt: { write: toSrt, type: "application/x-subrip" },
  json: { write: toJson, type: "application/json" },
};

/** A name for the file that every system accepts. */
export function fileName(conv, format) {
  const safe = conv.name.replace(/[^\w.-]+/g, "_").replace(/^[._]+/, "").slice(0, 80);
  return `${safe || "call"}.${format}`;
}
