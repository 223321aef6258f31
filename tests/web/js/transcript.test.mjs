import assert from "node:assert/strict";
import test from "node:test";

import { conversations, emptyState, reduce } from "../../../aii/web/js/calls.js";
import { fileName, srtTime, toJson, toSrt, toText } from "../../../aii/web/js/export.js";
import { commonStart, rows, wordsBySegment } from "../../../aii/web/js/transcript.js";

const conversation = (...messages) => conversations(messages.reduce(reduce, emptyState()))[0];
const segment = (start, end, text) => ({ start, end, text });
const word = (start, end, text) => ({ start, end, text, probability: 0.9 });
const final = (seq, segments, more = {}) => ({
  type: "final", call_id: "c", seq, start: segments[0]?.start ?? 0, end: segments.at(-1)?.end ?? 0,
  text: segments.map((s) => s.text).join(""), segments, words: [], reason: "reset", ...more,
});

test("each segment is a row with its words", () => {
  const words = [word(0, 0.4, " my"), word(0.4, 1, " number."), word(2, 2.5, " Four")];
  const conv = conversation(final(1, [segment(0, 1, " my number."), segment(2, 2.5, " Four")], { words }));
  const found = rows(conv);
  assert.deepEqual(found.map((row) => row.text), ["my number.", "Four"]);
  assert.deepEqual(found.map((row) => row.words.map((w) => w.text)), [[" my", " number."], [" Four"]]);
});

test("no word is lost where words and segments do not fit", () => {
  const words = ["a", "bb", "ccc", "d"].map((text, i) => word(i, i + 1, text));
  const found = wordsBySegment([segment(0, 1, "a"), segment(1, 2, "zz")], words);
  assert.deepEqual(found.flat(), words);
  assert.deepEqual(wordsBySegment([segment(0, 1, "a")], []), [[]]);
});

test("without times of words the row stands for them", () => {
  const [row] = rows(conversation({ type: "partial", call_id: "c", seq: 1, start: 3, end: 5, text: " so far" }));
  assert.equal(row.kind, "partial");
  assert.deepEqual(row.words.map(({ text, whole }) => [text, whole]), [[" so far", true]]);
  assert.equal(row.start, 3);
});

test("legs are mixed in the order of time, each in its column", () => {
  const at = (leg, seq, start, text) => ({ ...final(seq, [segment(start, start + 1, text)]), leg });
  const conv = conversation(at("callee", 1, 2, " fine"), at("caller", 1, 0, " hello"), at("caller", 2, 4, " good"));
  assert.deepEqual(rows(conv).map((row) => [row.column, row.leg, row.text]), [
    [0, "caller", "hello"], [1, "callee", "fine"], [0, "caller", "good"],
  ]);
});

test("words that are committed one by one make one row, up to a pause", () => {
  const bit = (seq, start, end, text) => final(seq, [segment(start, end, text)], { reason: "agreement", words: [word(start, end, text)] });
  const conv = conversation(bit(1, 0, 0.5, " one"), bit(2, 0.5, 0.9, " tw"), bit(3, 0.9, 1.1, "o,"), bit(4, 3, 3.5, " three"));
  const found = rows(conv);
  assert.deepEqual(found.map((row) => row.text), ["one two,", "three"]);
  assert.equal(found[0].words.length, 3);
  assert.equal(found[0].end, 1.1);
});

test("errors, keys, gaps and what guards removed have rows of their own", () => {
  const conv = conversation(
    final(1, [], { error: "out of memory", reason: "error", start: 0, end: 5 }),
    { type: "dtmf", call_id: "c", seq: 2, start: 6, digit: "#" },
    { type: "skipped", call_id: "c", seq: 3, start: 7, end: 9, reason: "behind", windows: 2, lost: false },
    final(4, [segment(10, 11, " yes")], { removed: ["a loop of 12 words"] }),
    { type: "answer", call_id: "c", seq: 5, start: 12, end: 13, value: "1234", source: "speech" },
  );
  assert.deepEqual(rows(conv).map((row) => [row.kind, row.text]), [
    ["error", "Could not be decoded: out of memory"],
    ["dtmf", "Key #"],
    ["skipped", "2 updates left out, the machine was behind"],
    ["final", "yes"],
    ["removed", "Left out: a loop of 12 words"],
    ["answer", "Answer: 1234 (speech)"],
  ]);
});

test("updates left out one after the other are one row, lost audio never", () => {
  const skipped = (seq, end, more) => ({ type: "skipped", call_id: "c", seq, start: end - 1, end, reason: "behind", windows: 2, lost: false, ...more });
  const conv = conversation(skipped(1, 1), skipped(2, 2), skipped(3, 3, { lost: true, reason: "shutdown" }), skipped(4, 4, { lost: true, reason: "shutdown" }));
  assert.deepEqual(rows(conv).map((row) => [row.text, row.start, row.lost]), [
    ["4 updates left out, the machine was behind", 2, false],
    ["Audio was lost: shutdown", 3, true],
    ["Audio was lost: shutdown", 4, true],
  ]);
});

test("keys of rows are different and stay", () => {
  const first = final(1, [segment(0, 1, " a"), segment(1, 2, " b")]);
  const before = rows(conversation(first)).map((row) => row.key);
  const after = rows(conversation(first, final(2, [segment(2, 3, " c")]))).map((row) => row.key);
  assert.deepEqual(after.slice(0, 2), before);
  assert.equal(new Set(after).size, 3);
});

test("what two texts share at the start", () => {
  assert.equal(commonStart(["a", "b"], ["a", "b", "c"]), 2);
  assert.equal(commonStart(["a", "x"], ["a", "b"]), 1);
  assert.equal(commonStart([], ["a"]), 0);
});

test("SubRip has numbers, times to the millisecond and finals only", () => {
  const conv = conversation(
    final(1, [segment(0, 1.5, " hello"), segment(3661.0005, 3662.25, " a --> b")]),
    { type: "partial", call_id: "c", seq: 2, start: 4000, end: 4001, text: " not yet" },
  );
  assert.equal(toSrt(conv), "1\n00:00:00,000 --> 00:00:01,500\nhello\n\n2\n01:01:01,001 --> 01:01:02,250\na -> b\n\n");
  assert.equal(srtTime(360000), "100:00:00,000");
  assert.equal(srtTime(59.9996), "00:01:00,000");
});

test("files of two legs say who speaks", () => {
  const at = (leg, start, text) => ({ ...final(1, [segment(start, start + 1, text)]), leg });
  const conv = conversation(at("caller", 0, " hello"), at("callee", 1, " hi"));
  assert.equal(toText(conv), "caller: hello\ncallee: hi\n");
  assert.match(toSrt(conv), /\ncaller: hello\n/);
  const { call, legs } = JSON.parse(toJson(conv));
  assert.equal(call, "c");
  assert.deepEqual(legs.map((leg) => [leg.leg, leg.text]), [["caller", "hello"], ["callee", "hi"]]);
});

test("JSON keeps words, times and dates", () => {
  const words = [word(0, 1, " yes")];
  const conv = conversation({ type: "started", call_id: "c", seq: 0, time: 0.5 }, final(1, [segment(0, 1, " yes")], { words }));
  const [leg] = JSON.parse(toJson(conv)).legs;
  assert.deepEqual(leg.finals[0].words, words);
  assert.equal(leg.started, "1970-01-01T00:00:00.500Z");
  assert.equal(leg.ended, null);
});

test("names of files are harmless", () => {
  assert.equal(fileName({ name: "../../etc/pass wd" }, "srt"), "etc_pass_wd.srt");
  assert.equal(fileName({ name: "…" }, "txt"), "call.txt");
});
