import assert from "node:assert/strict";
import test from "node:test";

import { wait } from "../../../aii/web/js/backoff.js";
import { axisTime, bytes, clock, ending, exact, languageName, milliseconds, percent, span, uptime } from "../../../aii/web/js/format.js";
import { add, emptySeries, ENOUGH, MOST_POINTS, path, quantile, summary, ticks, verdict } from "../../../aii/web/js/latency.js";
import { highlight, matches, terms } from "../../../aii/web/js/search.js";

const series = (...values) => values.reduce((s, ms, i) => add(s, { t: i / 2, ms }), emptySeries());

test("times", () => {
  assert.deepEqual([0, 5.9, 65, 3725].map(clock), ["0:00", "0:05", "1:05", "1:02:05"]);
  assert.equal(exact(59.999), "1:00.00");
  assert.equal(exact(5.318), "0:05.32");
  assert.equal(span({ start: 1, end: 1.5, probability: 0.937 }), "0:01.00 – 0:01.50 · 94 % sure");
  assert.equal(span({ start: 1, end: 1.5 }), "0:01.00 – 0:01.50");
  assert.deepEqual([5, 300, 12000, 90061].map(uptime), ["5 s", "5 min", "3 h 20 min", "1 d 1 h"]);
});

test("sizes", () => {
  assert.deepEqual([0, 999, 1500, 812e6, 12.34e9].map(bytes), ["0 B", "999 B", "1.5 kB", "812 MB", "12.3 GB"]);
  assert.deepEqual([3.21, 87.4, 1234, 45678].map(milliseconds), ["3.2 ms", "87 ms", "1.23 s", "45.7 s"]);
  assert.deepEqual([0, 2.5, 250, 1000, 1500, 8000].map(axisTime), ["0", "2.5 ms", "250 ms", "1 s", "1.5 s", "8 s"]);
  assert.equal(percent(0.996), "100 %");
});

test("quantiles lie between values", () => {
  assert.equal(quantile([], 0.5), null);
  assert.equal(quantile([4], 0.95), 4);
  assert.equal(quantile([3, 1, 2], 0.5), 2);
  assert.equal(quantile([1, 2, 3, 4], 0.5), 2.5);
});

test("a series keeps the latest points and counts all", () => {
  let s = emptySeries();
  for (let i = 0; i < MOST_POINTS + 5; i += 1) s = add(s, { t: i, ms: i });
  assert.equal(s.points.length, MOST_POINTS);
  assert.equal(s.points[0].t, 5);
  assert.equal(summary(s).total, MOST_POINTS + 5);
  assert.equal(summary(s).last, MOST_POINTS + 4);
});

test("the comparison says what was measured, and nothing too early", () => {
  const many = (...values) => series(...Array(ENOUGH / 2).fill(values).flat());
  assert.equal(verdict(series(100, 100), series()), "");
  // The first updates are of windows so short that the cache has nothing to gain.
  assert.equal(verdict(series(100, 100, 100), many(50, 50)), "What the cache gains is told after 20 updates; 3 so far.");
  assert.match(verdict(many(100, 100), many(40, 60)), /50 % less time \(medians of 20 and 20 updates; both share one engine\)/);
  assert.match(verdict(many(100, 100), many(150, 150)), /50 % more time/);
  assert.match(verdict(many(100, 100), many(100, 100)), /the same time/);
});

test("ticks are round, begin at zero and reach the largest value", () => {
  for (const max of [0.3, 7, 41, 96, 100, 260, 999, 3100]) {
    const found = ticks(max);
    assert.equal(found[0], 0);
    assert.ok(found.at(-1) >= max, `${max}: ${found}`);
    assert.ok(found.length >= 2 && found.length <= 7, `${max}: ${found}`);
  }
  assert.deepEqual(ticks(100), [0, 25, 50, 75, 100]);
});

test("a path goes through its points", () => {
  const d = path([{ t: 0, ms: 5 }, { t: 1, ms: 10 }], (t) => t * 10, (ms) => 20 - ms);
  assert.equal(d, "M0.0 15.0L10.0 10.0");
  assert.equal(path([], Number, Number), "");
});

test("attempts come at ever longer distances, with chance, and never stop", () => {
  assert.equal(wait(0, 1), 1);
  assert.equal(wait(3, 1), 8);
  assert.equal(wait(50, 1), 30);
  assert.equal(wait(50, 0), 22.5);
});

test("search finds words whatever their case and accents", () => {
  const found = (query, ...texts) => matches(terms(query), texts);
  assert.ok(found("", "anything"));
  assert.ok(found("MÜLLER four", "Herr Muller", "one FOUR"));
  assert.ok(!found("five", "one four"));
  assert.ok(found("ﬁve".normalize("NFKC"), "five"));
  assert.ok(found("i̇stanbul", "İstanbul"));
});

test("hits are marked where they stand in the original", () => {
  const marked = (text, query) => highlight(text, terms(query)).map(({ text: t, hit }) => (hit ? `[${t}]` : t)).join("");
  assert.equal(marked("Café au lait, CAFE", "cafe"), "[Café] au lait, [CAFE]");
  assert.equal(marked("Cafe\u0301s", "cafe"), "[Cafe\u0301]s");
  assert.equal(marked("banana", "ana"), "b[anana]");
  assert.equal(marked("four one", "one four"), "[four] [one]");
  assert.equal(marked("😀 five", "five"), "😀 [five]");
  assert.equal(marked("", "x"), "");
});

test("languages and ends of calls in words", () => {
  assert.equal(languageName("de"), "German");
  assert.equal(languageName("?"), "?");
  assert.equal(ending("connection reset"), "the connection broke off");
  assert.equal(ending("something new"), "ended: something new");
});
