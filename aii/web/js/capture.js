// Runs on the browser's audio thread: whatever rate the microphone has, 16 kHz mono comes out.

import { Resampler } from "./resampler.js";

const RATE = 16000;
const PIECE = 1600; // samples per message: 0.1 s

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.resampler = new Resampler(Math.round(sampleRate), RATE);
    this.piece = new Float32Array(PIECE);
    this.filled = 0;
    this.open = true;
    this.port.onmessage = () => this.finish();
  }

  process([channels]) {
    if (this.open && channels.length > 0) this.take(this.resampler.feed(mono(channels)));
    return this.open;
  }

  take(samples) {
    for (const sample of samples) {
      this.piece[this.filled] = sample;
      this.filled += 1;
      if (this.filled === PIECE) this.send();
    }
  }

  send() {
    const piece = this.piece.slice(0, this.filled);
    this.filled = 0;
    this.port.postMessage(piece, [piece.buffer]);
  }

  finish() {
    if (!this.open) return;
    this.open = false;
    this.take(this.resampler.flush());
    if (this.filled > 0) this.send();
    this.port.postMessage("end");
  }
}

function mono(channels) {
  if (channels.length === 1) return channels[0];
  return channels[0].map((_, i) => channels.reduce((sum, c) => sum + c[i], 0) / channels.length);
}

registerProcessor("capture", Capture);
