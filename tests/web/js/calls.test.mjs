import assert from "node:assert/strict";
import test from "node:test";

import { conversations, emptyState, lastWords, MOST_ENDED, openCalls, reduce, splitId, textOf } from "../../../aii/web/js/calls.js";

const final = (call_id, seq, start, end, text, more = {}) => ({ type: "final", call_id, seq, start, end, text, words: [], segments: [], ...more });
const run = (...messages) => messages.reduce(reduce, emptyState());
const call = (state, key) => state.calls.get(key);

test("a call begins, is heard and ends", () => {
  const state = run(
    { type: "started", call_id: "a", seq: 1, caller: "10.0.0.1:5", time: 100 },
    { type: "partial", call_id: "a", seq: 2, start: 0, end: 5, text: " one two", language: "en" },
    final("a", 3, 0, 6, " one two three"),
    { type: "dtmf", call_id: "a", seq: 4, start: 6.5, digit: "5" },
    { type: "ended", call_id: "a", seq: 5, end: 7, reason: "eof", time: 108 },
  );
  const a = call(state, "a");
  assert.equal(a.started, 100);
  assert.equal(a.ended, 108);
  assert.equal(a.reason, "eof");
  assert.equal(a.partial, null);
  assert.equal(a.duration, 7);
  assert.equal(a.language, "en");
  assert.equal(textOf(a), " one two three");
  assert.deepEqual(a.marks.map((m) => m.digit), ["5"]);
});

test("open calls are counted by legs, as the server does", () => {
  const started = (call_id, more = {}) => ({ type: "started", call_id, seq: 1, time: 1, ...more });
  const state = run(started("a", { leg: "caller" }), started("a", { leg: "callee" }), started("b"));
  assert.equal(openCalls(emptyState()), 0);
  assert.equal(openCalls(state), 3);
  assert.equal(openCalls(reduce(state, { type: "ended", call_id: "b", seq: 2, end: 1, reason: "eof" })), 2);
});

test("a partial is replaced as a whole, and goes where the final reaches its end", () => {
  const partial = (seq, end, text) => ({ type: "partial", call_id: "a", seq, start: 0, end, text });
  let state = run(partial(1, 5, " wrong"), partial(2, 10, " right words"));
  assert.equal(textOf(call(state, "a")), " right words");
  state = reduce(state, final("a", 3, 0, 10, " right words now"));
  assert.equal(call(state, "a").partial, null);
  // A final of the first words only: what is behind it is still to come.
  state = reduce(reduce(state, partial(4, 20, " and more")), final("a", 5, 10, 12, " and"));
  assert.equal(call(state, "a").partial.text, " and more");
});

test("reducers leave the state that they are given alone", () => {
  const before = run(final("a", 1, 0, 1, " x"));
  const copy = structuredClone(before);
  reduce(before, final("a", 2, 1, 2, " y"));
  reduce(before, final("b", 1, 1, 2, " z"));
  assert.deepEqual(before, copy);
});

test("an event that the snapshot already had changes nothing", () => {
  const list = [{ call_id: "a", started: 5, ended: null, finals: [final("a", 3, 0, 9, " kept")], partial: null }];
  const state = reduce(emptyState(), { type: "snapshot", calls: list });
  assert.equal(reduce(state, final("a", 3, 0, 9, " kept")), state);
  assert.equal(textOf(call(reduce(state, final("a", 4, 9, 12, " more")), "a")), " kept more");
});

test("a snapshot replaces what the page knew", () => {
  const state = reduce(run(final("old", 1, 0, 1, " x")), { type: "snapshot", calls: [{ call_id: "new", started: 1, ended: 2, reason: "eof" }] });
  assert.deepEqual([...state.calls.keys()], ["new"]);
});

test("finals that a snapshot left out come later, each in its place", () => {
  const list = [{ call_id: "a", leg: "", started: 5, ended: null, earlier: 2, finals: [final("a", 6, 9, 12, " three")] }];
  let state = reduce(emptyState(), { type: "snapshot", calls: list });
  state = reduce(state, final("a", 8, 12, 13, " four"));
  const full = { ...list[0], earlier: 0, finals: [final("a", 2, 0, 4, " one"), final("a", 4, 4, 9, " two"), ...list[0].finals] };
  state = reduce(state, { type: "full", calls: [full] });
  assert.equal(textOf(call(state, "a")), " one two three four");
  assert.equal(call(state, "a").earlier, 0);
  assert.equal(reduce(state, { type: "full", calls: [{ ...full, started: 99 }] }), state);
  assert.equal(reduce(state, { type: "full", calls: [{ ...full, call_id: "other" }] }), state);
});

test("an id may be used again after its call", () => {
  const state = run(
    { type: "started", call_id: "a", seq: 1, time: 1 },
    final("a", 2, 0, 1, " first"),
    { type: "ended", call_id: "a", seq: 3, end: 1, reason: "eof", time: 3 },
    { type: "started", call_id: "a", seq: 1, time: 9 },
    final("a", 2, 0, 1, " second"),
  );
  assert.equal(textOf(call(state, "a")), " second");
  assert.equal(call(state, "a").ended, null);
});

test("two legs of one call stand together, the caller first", () => {
  const state = run(
    { ...final("c", 1, 1, 2, " yes?"), leg: "callee" },
    { ...final("c", 1, 0, 1, " hello"), leg: "caller" },
    final("desk:system", 1, 0, 1, " them"),
    final("desk:mic", 1, 0, 1, " me"),
  );
  const found = new Map(conversations(state).map((conv) => [conv.name, conv.legs.map((leg) => leg.leg)]));
  assert.deepEqual(found.get("c"), ["caller", "callee"]);
  assert.deepEqual(found.get("desk"), ["mic", "system"]);
});

test("ids with a colon that is no leg stay as they are", () => {
  assert.deepEqual(splitId("10.0.0.1:5060"), { name: "10.0.0.1:5060", leg: "" });
  assert.deepEqual(splitId("desk:mic"), { name: "desk", leg: "mic" });
  assert.deepEqual(splitId(":mic"), { name: ":mic", leg: "" });
});

test("live calls come first, then the latest", () => {
  const state = run(
    { type: "started", call_id: "done", seq: 1, time: 30 },
    { type: "ended", call_id: "done", seq: 2, end: 1, reason: "eof", time: 40 },
    { type: "started", call_id: "early", seq: 1, time: 10 },
    { type: "started", call_id: "late", seq: 1, time: 20 },
  );
  assert.deepEqual(conversations(state).map((conv) => conv.name), ["late", "early", "done"]);
});

test("a conversation is live while one of its legs is", () => {
  const state = run(
    { type: "started", call_id: "c", leg: "caller", seq: 1, time: 1 },
    { type: "started", call_id: "c", leg: "callee", seq: 1, time: 2 },
    { type: "ended", call_id: "c", leg: "caller", seq: 2, end: 1, reason: "eof", time: 3 },
  );
  const [conv] = conversations(state);
  assert.equal(conv.live, true);
  assert.equal(conv.started, 1);
});

test("of ended calls the latest are kept, of live ones all", () => {
  let state = run({ type: "started", call_id: "live", seq: 1, time: 0 });
  for (let i = 0; i < MOST_ENDED + 20; i += 1) {
    state = reduce(state, { type: "started", call_id: `c${i}`, seq: 1, time: i });
    state = reduce(state, { type: "ended", call_id: `c${i}`, seq: 2, end: 1, reason: "eof", time: i });
  }
  assert.equal(state.calls.size, MOST_ENDED + 1);
  assert.ok(state.calls.has("live"));
  assert.ok(!state.calls.has("c19"));
  assert.ok(state.calls.has("c20"));
});

test("silence that was skipped is no gap, lost audio is", () => {
  const state = run(
    { type: "skipped", call_id: "a", seq: 1, start: 0, end: 4, reason: "silence", windows: 1, lost: false },
    { type: "skipped", call_id: "a", seq: 2, start: 4, end: 9, reason: "shutdown", windows: 1, lost: true },
  );
  assert.deepEqual(call(state, "a").marks.map((m) => m.seq), [2]);
  assert.equal(call(state, "a").duration, 9);
});

test("speech is shown while it lasts", () => {
  let state = run({ type: "speech_started", call_id: "a", seq: 1, start: 2 });
  assert.equal(conversations(state)[0].speaking, true);
  state = reduce(state, { type: "speech_ended", call_id: "a", seq: 2, start: 2, end: 3 });
  assert.equal(conversations(state)[0].speaking, false);
});

test("messages of a later server, or of none of ours, do no harm", () => {
  const state = run(final("a", 1, 0, 1, " x"));
  assert.equal(reduce(state, { type: "whatever" }), state);
  assert.equal(textOf(call(reduce(state, { type: "mood", call_id: "a", seq: 2 }), "a")), " x");
});

test("the line in the list is the last words, cut at a word", () => {
  const text = ` ${"word ".repeat(60)}end`;
  const [conv] = conversations(run(final("a", 1, 0, 1, text)));
  const line = lastWords(conv, 30);
  assert.ok(line.startsWith("… word") && line.endsWith("word end"), line);
  assert.ok(line.length <= 32);
});

test("a call that was asked for by its id joins the others", () => {
  const before = run({ type: "started", call_id: "new", seq: 1, time: 9 });
  const asked = { call_id: "old", started: 1, ended: 5, reason: "eof", duration: 4, finals: [final("old", 2, 0, 4, " said")], earlier: 0 };
  const state = reduce(before, { type: "known", call: asked });
  assert.deepEqual(conversations(state).map((conv) => conv.name), ["new", "old"]);
  assert.equal(textOf(call(state, "old")), " said");
  assert.equal(before.calls.size, 1);
});
