import assert from "node:assert/strict";
import test from "node:test";

import { Resampler } from "../../../aii/web/js/resampler.js";

const sine = (rate, hertz, seconds = 0.2) =>
  Float32Array.from({ length: Math.round(rate * seconds) }, (_, i) => 0.5 * Math.sin((2 * Math.PI * hertz * i) / rate));

function whole(rate, samples) {
  const resampler = new Resampler(rate);
  return Float32Array.from([...resampler.feed(samples), ...resampler.flush()]);
}

const decibels = (samples) => 10 * Math.log10(samples.reduce((sum, x) => sum + x * x, 0) / samples.length + 1e-30);

for (const rate of [8000, 16000, 22050, 44100, 48000, 96000]) {
  test(`from ${rate} Hz a tone stays the tone, sample by sample`, () => {
    const out = whole(rate, sine(rate, 1000));
    const wanted = sine(16000, 1000);
    assert.equal(out.length, wanted.length);
    // Away from the ends, where the tone begins and stops at once.
    for (let i = 800; i < out.length - 800; i += 1) assert.ok(Math.abs(out[i] - wanted[i]) < 1e-4, `${i}`);
  });
}

test("what 16 kHz cannot hold is gone", () => {
  const out = whole(48000, sine(48000, 11000));
  assert.ok(decibels(out.slice(800, -800)) < -90);
});

test("the result is the same however the stream is cut", () => {
  const samples = sine(44100, 700);
  const once = whole(44100, samples);
  for (const size of [1, 7, 128, 1000]) {
    const resampler = new Resampler(44100);
    const out = [];
    for (let i = 0; i < samples.length; i += size) out.push(...resampler.feed(samples.subarray(i, i + size)));
    out.push(...resampler.flush());
    assert.deepEqual(Float32Array.from(out), once);
  }
});

test("N samples become ceil(N * 16000 / rate), and the stream can begin again", () => {
  for (const n of [0, 1, 2, 3, 147, 441, 1000]) {
    const resampler = new Resampler(44100);
    for (let round = 0; round < 2; round += 1) {
      const length = resampler.feed(new Float32Array(n)).length + resampler.flush().length;
      assert.equal(length, Math.ceil((n * 16000) / 44100));
    }
  }
});

test("what is held does not grow", () => {
  const resampler = new Resampler(48000);
  for (let i = 0; i < 2000; i += 1) resampler.feed(new Float32Array(128));
  assert.ok(resampler.held.length < 1000);
});

test("rates that make no sense are refused", () => {
  for (const rate of [0, -1, 44100.5, NaN, 2e6]) assert.throws(() => new Resampler(rate), RangeError);
});
