// Answers for the Python twins: reads {"resample": [...], "srt": [...]} and writes what our modules
// make of it, for tests/web/test_modules.py to compare.

import { readFileSync } from "node:fs";

import { conversations, emptyState, reduce } from "../../../aii/web/js/calls.js";
import { toSrt } from "../../../aii/web/js/export.js";
import { Resampler } from "../../../aii/web/js/resampler.js";

const asked = JSON.parse(readFileSync(0, "utf-8"));

const resample = asked.resample.map(({ rate, samples }) => {
  const resampler = new Resampler(rate);
  const out = [];
  for (let i = 0; i < samples.length; i += 128) out.push(...resampler.feed(Float32Array.from(samples.slice(i, i + 128))));
  return [...out, ...resampler.flush()];
});

const srt = asked.srt.map((events) => toSrt(conversations(events.reduce(reduce, emptyState()))[0]));

process.stdout.write(JSON.stringify({ resample, srt }));
