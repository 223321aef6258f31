// Any sample rate to 16 kHz, with the same result however the stream is cut.
//
// The same filter as aii/audio/resampler.py, bit for bit: a sinc windowed by Kaiser's window, flat
// to 0.9 of the lower Nyquist frequency and 90 dB down from there on, its delay taken out. Samples
// are rounded to 2**-23 and coefficients to 2**-24, so that doubles hold every sum exactly and the
// order of adding cannot matter.

const PASSBAND = 0.9;
const STOPBAND_DB = 90;
const BETA = 0.1102 * (STOPBAND_DB - 8.7);
const SAMPLE_STEPS = 2 ** 23;
const COEFFICIENT_STEPS = 2 ** 24;
const LARGEST_RATIO = 100;

/** The greatest common divisor of two positive whole numbers. */
function divisor(a, b) {
  while (b) [a, b] = [b, a % b];
  return a;
}

/** To the nearest whole number, halves to the even one, as numpy rounds. */
function roundEven(value) {
  const near = Math.round(value);
  return Math.abs(value - Math.trunc(value)) === 0.5 && near % 2 !== 0 ? near - 1 : near;
}

/** Modified Bessel function I0 by its power series, to the last bit or two of a double. */
function bessel(x) {
  let term = 1;
  let sum = 1;
  const quarter = (x * x) / 4;
  for (let k = 1; term > sum * 1e-18; k += 1) {
    term *= quarter / (k * k);
    sum += term;
  }
  return sum;
}

function sinc(x) {
  return x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
}

/** Converts a stream of mono samples from one rate to another, piece by piece. */
export class Resampler {
  /**
   * @param {number} fromRate samples per second that come in
   * @param {number} toRate samples per second that go out
   */
  constructor(fromRate, toRate = 16000) {
    const [low, high] = fromRate < toRate ? [fromRate, toRate] : [toRate, fromRate];
    if (!Number.isInteger(low) || !Number.isInteger(high) || low <= 0 || high > low * LARGEST_RATIO) {
      throw new RangeError(`cannot resample from ${fromRate} to ${toRate} Hz`);
    }
    const common = divisor(fromRate, toRate);
    this.up = toRate / common;
    this.down = fromRate / common;
    this.band = Math.min(1, toRate / fromRate);
    const width = (STOPBAND_DB - 7.95) / (2.285 * Math.PI * (1 - PASSBAND) * this.band);
    this.half = Math.ceil(width / 2) + 1;
    this.filters = new Array(this.up); // made when first needed
    this.restart();
  }

  /** Forget the stream so far. */
  restart() {
    this.received = 0; // samples, silence at the end included
    this.sent = 0;
    this.held = new Float64Array(this.half - 1); // silence before the start
    this.origin = 1 - this.half; // the stream's sample that held[0] is
  }

  /** Take the next samples; give what is now certain, as a Float32Array. */
  feed(samples) {
    const exact = Float64Array.from(samples, (x) => roundEven(x * SAMPLE_STEPS) / SAMPLE_STEPS);
    return this.up === this.down ? Float32Array.from(exact) : this.advance(exact);
  }

  /** End the stream: give the rest. N samples have then become ceil(N * to / from). */
  flush() {
    const rest = this.up === this.down ? new Float32Array(0) : this.advance(new Float64Array(this.half));
    this.restart();
    return rest;
  }

  advance(fresh) {
    const held = new Float64Array(this.held.length + fresh.length);
    held.set(this.held);
    held.set(fresh, this.held.length);
    this.received += fresh.length;
    const end = Math.max(this.sent, Math.ceil(((this.received - this.half) * this.up) / this.down));
    const out = new Float32Array(end - this.sent);
    for (let place = 0; place < out.length; place += 1) {
      const position = (this.sent + place) * this.down;
      const filter = this.filter(position % this.up);
      const first = Math.floor(position / this.up) - this.half + 1 - this.origin;
      let sum = 0;
      for (let tap = 0; tap < filter.length; tap += 1) sum += filter[tap] * held[first + tap];
      out[place] = sum;
    }
    this.sent = end;
    const next = Math.floor((end * this.down) / this.up) - this.half + 1;
    this.held = held.slice(next - this.origin);
    this.origin = next;
    return out;
  }

  /** The filter for outputs that lie phase / up past an input sample. */
  filter(phase) {
    return (this.filters[phase] ??= this.design(phase / this.up));
  }

  design(fraction) {
    const cutoff = (this.band * (1 + PASSBAND)) / 2;
    const taps = Float64Array.from({ length: 2 * this.half }, (_, i) => i + 1 - this.half - fraction);
    const shape = taps.map((tap) => {
      const inside = Math.min(Math.max(1 - (tap / this.half) ** 2, 0), 1);
      return sinc(cutoff * tap) * bessel(BETA * Math.sqrt(inside));
    });
    const total = shape.reduce((sum, x) => sum + x, 0);
    return shape.map((x) => roundEven((x / total) * COEFFICIENT_STEPS) / COEFFICIENT_STEPS);
  }
}
