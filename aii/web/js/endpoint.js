// One of the two streaming endpoints: samples go in, { text, latency } comes back.

import { socketUrl } from "./api.js";

const MOST_WAITING = 30 * 16000 * 4; // bytes: 30 s of audio that the network did not take
const LAST_WORDS = 60000; // ms for the update that has heard the end

/** A connection to ``path``; onUpdate({ text, latency }), onState(state, message). */
export class Endpoint {
  constructor(path, { onUpdate, onState }) {
    this.onState = onState;
    this.failed = false;
    this.early = []; // samples from before the connection was there
    this.socket = new WebSocket(socketUrl(path));
    this.socket.binaryType = "arraybuffer";
    this.opened = new Promise((done) => {
      this.settle = done;
    });
    this.socket.onopen = () => {
      this.flush();
      this.settle();
      onState("live");
    };
    this.socket.onmessage = ({ data }) => {
      let update;
      try {
        update = JSON.parse(data);
      } catch {
        return this.fail("The server's answer could not be read.");
      }
      if (update.error) return this.fail(String(update.error));
      if (typeof update.text !== "string" || typeof update.latency !== "number") return undefined;
      return onUpdate(update);
    };
    this.socket.onclose = ({ code, reason }) => {
      this.settle();
      this.closed?.();
      if (this.failed) return;
      if (code === 1000) onState("ended"); // by the server, politely
      else this.fail(reason || (code === 1006 ? "The connection broke off." : `Closed with code ${code}.`));
    };
  }

  /** Send samples, Float32Array at 16 kHz. False once it is of no use any more. */
  send(samples) {
    if (this.failed || this.ending) return false;
    if (this.socket.readyState === WebSocket.CONNECTING) return this.keep(samples);
    if (this.socket.readyState !== WebSocket.OPEN) return false;
    if (this.socket.bufferedAmount > MOST_WAITING) {
      this.fail("The network is too slow: 30 s of audio wait to be sent.");
      return false;
    }
    this.socket.send(littleEndian(samples));
    return true;
  }

  flush() {
    for (const piece of this.early.splice(0)) this.socket.send(littleEndian(piece));
  }

  // What is said while the connection is made is not lost.
  keep(samples) {
    this.early.push(samples);
    const held = this.early.reduce((bytes, piece) => bytes + piece.byteLength, 0);
    if (held > MOST_WAITING) this.fail("The server does not answer.");
    return !this.failed;
  }

  /** The audio is over: ask for the last words, and close once they have come. */
  async end() {
    if (this.failed || this.ending) return;
    await this.opened; // what was said before is still to be sent
    if (this.failed || this.ending) return;
    this.ending = true;
    if (this.socket.readyState === WebSocket.OPEN) {
      this.onState("ending");
      this.socket.send(JSON.stringify({ type: "end" }));
      await new Promise((done) => {
        this.closed = done;
        setTimeout(done, LAST_WORDS);
      });
      if (this.failed) return;
      if (this.socket.readyState === WebSocket.OPEN) {
        this.fail("The last words did not come in time.");
        return;
      }
    }
    this.socket.close(1000);
    this.onState("ended");
  }

  fail(message) {
    this.failed = true;
    this.onState("failed", message);
    this.socket.close();
  }
}

const little = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

function littleEndian(samples) {
  if (little) return samples;
  const view = new DataView(new ArrayBuffer(samples.length * 4));
  samples.forEach((sample, i) => view.setFloat32(i * 4, sample, true));
  return view.buffer;
}
