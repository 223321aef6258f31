// Numbers as people read them.

const two = (n) => String(n).padStart(2, "0");

/** Seconds as 0:05, 12:34 or 1:02:03. */
export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor(whole / 60) % 60;
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

/** Seconds with hundredths, as 0:05.32: for the times of words. */
export function exact(seconds) {
  const hundredths = Math.max(0, Math.round(seconds * 100));
  return `${clock(hundredths / 100)}.${two(hundredths % 100)}`;
}

/** A word's or segment's span and, where known, how sure the model was. */
export function span({ start, end, probability }) {
  const sure = probability == null ? "" : ` · ${percent(probability)} sure`;
  return `${exact(start)} – ${exact(end)}${sure}`;
}

/** A share of one as 94 %. */
export function percent(share) {
  return `${Math.round(share * 100)} %`;
}

/** Milliseconds, from one second on as seconds. */
export function milliseconds(ms) {
  if (ms >= 1000) return `${(ms / 1000).toFixed(ms < 10000 ? 2 : 1)} s`;
  return ms < 10 ? `${ms.toFixed(1)} ms` : `${Math.round(ms)} ms`;
}

/** Milliseconds at an axis, where round values stand: 250 ms, 1.5 s. */
export function axisTime(ms) {
  if (ms === 0) return "0";
  return ms >= 1000 ? `${Number((ms / 1000).toFixed(2))} s` : `${Number(ms.toFixed(1))} ms`;
}

/** Samples per second as 44.1 kHz. */
export function kilohertz(rate) {
  return `${Number((rate / 1000).toFixed(2))} kHz`;
}

/** Bytes as 812 MB or 1.2 GB. */
export function bytes(count) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let value = count;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

/** A long time as 42 s, 12 min, 3 h 20 min or 5 d 3 h. */
export function uptime(seconds) {
  const minutes = Math.floor(seconds / 60);
  if (minutes < 1) return `${Math.floor(seconds)} s`;
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 24 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** "1 call", "2 calls". */
export function count(number, one, many = `${one}s`) {
  return `${number} ${number === 1 ? one : many}`;
}

const ENDINGS = {
  eof: "the caller's end closed",
  hangup: "hung up",
  "connection reset": "the connection broke off",
  idle: "no more audio came",
  done: "ended by its plan",
  left: "the client left",
  shutdown: "the server stopped",
  "shutdown deadline": "the server stopped before all was decoded",
  "slow reader": "the client did not read",
  "session too long": "it lasted longer than is allowed",
};

/** Why a call has ended, in words. */
export function ending(reason) {
  return ENDINGS[reason] ?? `ended: ${reason}`;
}

/** The name of a language by its code, where the browser knows it. */
export function languageName(code) {
  try {
    return new Intl.DisplayNames(["en"], { type: "language" }).of(code);
  } catch {
    return code;
  }
}
