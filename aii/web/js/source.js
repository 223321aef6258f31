// Where the microphone view's samples come from: a microphone, or a recording played at its speed.

import { Resampler } from "./resampler.js";

const RATE = 16000;
const STEP = 100; // ms between pieces of a recording

/** A source that cannot be used; the message is for the user. */
export class SourceError extends Error {}

/** Why no microphone can be asked for at all, or "". */
export function obstacle() {
  if (!window.isSecureContext) {
    return "Browsers give the microphone to secure pages only: open this page over https, or on this machine as http://localhost.";
  }
  if (!navigator.mediaDevices?.getUserMedia || !window.AudioWorkletNode) {
    return "This browser cannot record: it has no AudioWorklet.";
  }
  return "";
}

/** Microphones by name; before the first permission browsers tell none. */
export async function microphones() {
  const devices = (await navigator.mediaDevices?.enumerateDevices?.()) ?? [];
  return devices.filter((device) => device.kind === "audioinput" && device.deviceId);
}

const REASONS = {
  NotAllowedError: "The microphone was refused. Allow it in the browser's address bar, then try again.",
  NotFoundError: "No microphone was found. Plug one in, or play a recording.",
  NotReadableError: "The microphone is in use by another program.",
  OverconstrainedError: "This microphone is not there any more. Choose another one.",
};

/** Record: onSamples(Float32Array) at 16 kHz until stop() is done; onEnded() if the device goes. */
export async function record({ deviceId, onSamples, onEnded }) {
  const problem = obstacle();
  if (problem) throw new SourceError(problem);
  const exact = deviceId ? { deviceId: { exact: deviceId } } : {};
  // What was said, not what a video conference would make of it.
  const audio = { ...exact, channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio });
  } catch (error) {
    throw new SourceError(REASONS[error.name] ?? `The microphone cannot be used: ${error.message}`);
  }
  const [track] = stream.getAudioTracks();
  const context = new AudioContext();
  try {
    await context.audioWorklet.addModule(new URL("capture.js", import.meta.url));
    await context.resume();
  } catch (error) {
    track.stop();
    await context.close();
    throw new SourceError(`The microphone cannot be read: ${error.message}`);
  }
  const node = new AudioWorkletNode(context, "capture", { numberOfInputs: 1, numberOfOutputs: 0 });
  let ended;
  const end = new Promise((done) => {
    ended = done;
  });
  node.port.onmessage = ({ data }) => (data === "end" ? ended() : onSamples(data));
  context.createMediaStreamSource(stream).connect(node);
  track.onended = onEnded;
  return {
    label: track.label || "Microphone",
    rate: context.sampleRate,
    async stop() {
      node.port.postMessage("stop");
      await Promise.race([end, new Promise((done) => setTimeout(done, 500))]);
      track.onended = null;
      track.stop();
      await context.close();
    },
  };
}

/** Play a recording of any kind that the browser decodes; calls back as record does. */
export async function play({ file, onSamples, onEnded }) {
  const context = new AudioContext();
  let decoded;
  try {
    decoded = await context.decodeAudioData(await file.arrayBuffer());
  } catch {
    throw new SourceError(`${file.name} is no recording that this browser can read.`);
  } finally {
    await context.close();
  }
  const rate = decoded.sampleRate;
  const resampler = new Resampler(rate, RATE);
  const started = performance.now();
  let sent = 0;
  const timer = setInterval(() => {
    const due = Math.min(decoded.length, Math.floor(((performance.now() - started) / 1000) * rate));
    onSamples(resampler.feed(mixed(decoded, sent, due)));
    sent = due;
    if (sent < decoded.length) return;
    clearInterval(timer);
    onSamples(resampler.flush());
    onEnded();
  }, STEP);
  return { label: file.name, rate, stop: async () => clearInterval(timer) };
}

/** Samples ``from`` to ``to`` of a recording, its channels mixed down. */
function mixed(decoded, from, to) {
  const mono = new Float32Array(to - from);
  for (let channel = 0; channel < decoded.numberOfChannels; channel += 1) {
    const samples = decoded.getChannelData(channel).subarray(from, to);
    samples.forEach((sample, i) => {
      mono[i] += sample / decoded.numberOfChannels;
    });
  }
  return mono;
}
