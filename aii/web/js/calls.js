// The calls that the page knows: what the server's messages make of them. No document here.
//
// A state is { calls: Map(key -> call) }. Reducers give new values and leave the old ones alone.

export const MOST_ENDED = 200;

// In the order in which legs stand side by side; a call id may end in one of them, as "desk:mic".
const LEGS = ["caller", "customer", "mic", "left", "in", "a", "callee", "agent", "system", "right", "out", "b"];
const WITH_LEG = new RegExp(`^(.+):(${LEGS.join("|")})$`);

export const emptyState = () => ({ calls: new Map() });

/** The conversation that a call id belongs to and the leg it is: "desk:mic" is mic of "desk". */
export function splitId(id) {
  const found = WITH_LEG.exec(id);
  return found ? { name: found[1], leg: found[2] } : { name: id, leg: "" };
}

const keyOf = (message) => (message.leg ? `${message.call_id}\n${message.leg}` : message.call_id);

function newCall(message) {
  const { name, leg } = message.leg ? { name: message.call_id, leg: message.leg } : splitId(message.call_id);
  return {
    key: keyOf(message),
    id: message.call_id,
    name,
    leg,
    caller: message.caller || "",
    callee: message.callee || "",
    started: message.started ?? message.time ?? null, // unix seconds
    ended: message.ended ?? null,
    reason: message.reason ?? null,
    duration: message.duration ?? 0, // seconds of audio
    language: null,
    finals: [],
    earlier: message.earlier ?? 0, // finals before these, which the server has
    partial: null,
    marks: [], // keys pressed, answers, spans left out
    speaking: false, // known only where the server detects voice activity
    seq: 0,
  };
}

/** What a message of the server (a snapshot, a call that was asked for, or one event of one call) makes of the state. */
export function reduce(state, message) {
  if (message.type === "snapshot") return snapshot(message.calls);
  if (message.type === "full") return message.calls.reduce(filled, state);
  if (message.type === "known") return { calls: new Map([...state.calls, ...snapshot([message.call]).calls]) };
  if (typeof message.call_id !== "string") return state;
  const key = keyOf(message);
  const known = state.calls.get(key);
  // A call id may be used again once its call is over.
  const call = !known || (message.type === "started" && known.seq > 0) ? newCall(message) : known;
  if (call === known && message.seq != null && message.seq <= known.seq) return state;
  const calls = new Map(state.calls);
  calls.set(key, { ...apply(call, message), seq: message.seq ?? call.seq });
  return { calls: trim(calls) };
}

/** A state from the server's list alone: what the page knew before may be out of date. */
function snapshot(list) {
  const calls = new Map();
  for (const item of list) {
    let call = newCall(item);
    for (const final of item.finals ?? []) call = apply(call, { ...final, type: "final" });
    if (item.partial) call = apply(call, { ...item.partial, type: "partial" });
    const seqs = [...call.finals, ...(call.partial ? [call.partial] : [])].map((e) => e.seq ?? 0);
    calls.set(call.key, { ...call, seq: item.seq ?? Math.max(0, ...seqs) });
  }
  return { calls: trim(calls) };
}

/** The state with all the finals of a call, of which it had the last ones. */
function filled(state, item) {
  const call = state.calls.get(keyOf(item));
  if (!call || call.started !== item.started) return state; // another call of this id by now
  const bySeq = new Map([...item.finals, ...call.finals].map((final) => [final.seq, { ...final, type: "final" }]));
  const finals = [...bySeq.values()].sort((a, b) => a.seq - b.seq);
  const calls = new Map(state.calls);
  calls.set(call.key, { ...call, finals, earlier: item.earlier ?? 0 });
  return { calls };
}

function apply(call, event) {
  const duration = Math.max(call.duration, event.end ?? event.start ?? 0);
  switch (event.type) {
    case "started":
      return { ...call, caller: event.caller || call.caller, callee: event.callee || call.callee };
    case "speech_started":
      return { ...call, speaking: true };
    case "speech_ended":
      return { ...call, duration, speaking: false };
    case "partial":
      return { ...call, duration, partial: event, language: event.language ?? call.language };
    case "final":
      return {
        ...call,
        duration,
        finals: [...call.finals, event],
        partial: call.partial && call.partial.end > event.end ? call.partial : null,
        language: event.text.trim() ? (event.language ?? call.language) : call.language,
      };
    case "skipped":
      if (event.reason === "silence") return { ...call, duration }; // nobody spoke: nothing is missing
      return { ...call, duration, marks: [...call.marks, event] };
    case "dtmf":
    case "answer":
      return { ...call, duration, marks: [...call.marks, event] };
    case "ended":
      return {
        ...call,
        duration,
        partial: null,
        speaking: false,
        ended: event.time ?? Date.now() / 1000,
        reason: event.reason,
      };
    default: // an event that a later server may have
      return call;
  }
}

/** At most MOST_ENDED ended calls stay, the latest. */
function trim(calls) {
  const ended = [...calls.values()].filter((call) => call.ended !== null);
  if (ended.length <= MOST_ENDED) return calls;
  ended.sort((a, b) => a.ended - b.ended);
  for (const call of ended.slice(0, ended.length - MOST_ENDED)) calls.delete(call.key);
  return calls;
}

/** How many calls are open, each leg by itself, as the server counts them. */
export function openCalls(state) {
  return [...state.calls.values()].filter((call) => call.ended === null).length;
}

/** Calls put together by name, live ones first, then the latest. */
export function conversations(state) {
  const byName = new Map();
  for (const call of state.calls.values()) {
    byName.set(call.name, [...(byName.get(call.name) ?? []), call]);
  }
  return [...byName].map(([name, legs]) => conversation(name, legs)).sort(order);
}

function conversation(name, legs) {
  legs.sort((a, b) => LEGS.indexOf(a.leg) - LEGS.indexOf(b.leg) || a.leg.localeCompare(b.leg));
  const started = Math.min(...legs.map((leg) => leg.started ?? Infinity));
  const live = legs.some((leg) => leg.ended === null);
  return {
    name,
    legs,
    live,
    started: Number.isFinite(started) ? started : null,
    ended: live ? null : Math.max(...legs.map((leg) => leg.ended)),
    reason: legs.find((leg) => leg.reason)?.reason ?? null,
    caller: legs.find((leg) => leg.caller)?.caller ?? "",
    callee: legs.find((leg) => leg.callee)?.callee ?? "",
    speaking: legs.some((leg) => leg.speaking),
    language: legs.find((leg) => leg.language)?.language ?? null,
    duration: Math.max(...legs.map((leg) => leg.duration)),
  };
}

function order(a, b) {
  if (a.live !== b.live) return a.live ? -1 : 1;
  return (b.started ?? 0) - (a.started ?? 0) || a.name.localeCompare(b.name);
}

/** All that was said in a call so far, the partial included. */
export function textOf(call) {
  return call.finals.map((final) => final.text).join("") + (call.partial?.text ?? "");
}

/** The last words of a conversation, for a line in the list. */
export function lastWords(conv, length = 90) {
  const latest = conv.legs.reduce((a, b) => (lastEnd(b) > lastEnd(a) ? b : a));
  const text = textOf(latest).trim().replace(/\s+/g, " ");
  if (text.length <= length) return text;
  const tail = text.slice(-length);
  return `… ${tail.slice(tail.indexOf(" ") + 1)}`;
}

const lastEnd = (call) => call.partial?.end ?? call.finals.at(-1)?.end ?? -1;
