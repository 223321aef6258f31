// A conversation as rows in the order of time, each with its leg. No document here.

const bare = (text) => text.replace(/\s+/g, "").length;

const PAUSE = 0.8; // seconds of silence that begin a new row
const LONGEST = 12; // seconds in a row that was put together

/**
 * Rows of a conversation: { key, kind, leg, column, start, end, text, words }.
 *
 * kind is "final", "partial", "error" (audio that could not be decoded), "removed" (text that a
 * guard took away), "dtmf", "answer" or "skipped". Words have their own times where the server sent
 * them; else there is one "word", the whole row. Finals of a few words each, as the policies give
 * that commit word by word, are put together up to a pause.
 */
export function rows(conv) {
  const all = conv.legs.flatMap((call, column) => callRows(call).map((row) => ({ ...row, column })));
  return all.sort((a, b) => a.start - b.start || a.column - b.column);
}

function callRows(call) {
  const said = call.finals.flatMap((final) => (final.error ? [errorRow(final)] : heardRows(final, "final")));
  const found = joined(said);
  if (call.partial) found.push(...heardRows(call.partial, "partial"));
  for (const final of call.finals) {
    for (const [i, line] of (final.removed ?? []).entries()) {
      found.push(note("removed", final, `Left out: ${line}`, `${final.seq}.${i}`));
    }
  }
  for (const mark of together(call.marks)) {
    // What was left out is known where it ends; a key was pressed where it begins.
    const at = mark.type === "skipped" ? { start: mark.end, end: mark.end } : mark;
    found.push({ ...note(mark.type, at, markText(mark), mark.seq), lost: !!mark.lost });
  }
  return found.map((row) => ({ ...row, leg: call.leg, key: `${call.key}/${row.kind}/${row.id}` }));
}

function joined(said) {
  const found = [];
  for (const row of said) {
    const last = found.at(-1);
    if (last && row.kind === "final" && last.kind === "final" && goesOn(last, row)) {
      const text = `${last.text}${/^\s/.test(row.raw) ? " " : ""}${row.text}`;
      found[found.length - 1] = { ...last, end: row.end, text, words: [...last.words, ...row.words] };
    } else {
      found.push(row);
    }
  }
  return found;
}

function goesOn(last, row) {
  return last.bitByBit && row.start - last.end < PAUSE && row.end - last.start <= LONGEST;
}

/** Updates that were left out one after the other are one mark. */
function together(marks) {
  const found = [];
  for (const mark of marks) {
    const last = found.at(-1);
    const same = last?.type === "skipped" && mark.type === "skipped" && last.reason === mark.reason && !mark.lost && !last.lost;
    if (same) found[found.length - 1] = { ...last, end: mark.end, windows: last.windows + mark.windows };
    else found.push(mark);
  }
  return found;
}

function note(kind, event, text, id) {
  return { kind, start: event.start, end: event.end ?? event.start, text, words: [], id };
}

function errorRow(final) {
  return note("error", final, `Could not be decoded: ${final.error}`, final.seq);
}

function markText(mark) {
  if (mark.type === "dtmf") return `Key ${mark.digit}`;
  if (mark.type === "answer") return `Answer: ${mark.value ?? mark.text ?? "none"}${mark.source ? ` (${mark.source})` : ""}`;
  if (mark.lost) return `Audio was lost: ${mark.reason}`;
  const windows = mark.windows === 1 ? "1 update" : `${mark.windows} updates`;
  return mark.reason === "behind" ? `${windows} left out, the machine was behind` : `${windows} left out: ${mark.reason}`;
}

function heardRows(event, kind) {
  const whole = { start: event.start, end: event.end, text: event.text };
  const segments = (event.segments?.length ? event.segments : [whole]).filter((s) => s.text.trim());
  const words = wordsBySegment(segments, event.words ?? []);
  return segments.map((segment, i) => ({
    kind,
    start: segment.start,
    end: segment.end,
    raw: segment.text,
    text: segment.text.trim(),
    words: words[i].length ? words[i] : [{ ...segment, whole: true }],
    bitByBit: event.reason === "agreement",
    // Partials are replaced as a whole, so their place is what stays.
    id: kind === "final" ? `${event.seq}.${i}` : i,
    last: i === segments.length - 1,
  }));
}

/** An event has its words in one list; a segment's are as many as make up its text. */
export function wordsBySegment(segments, words) {
  let next = 0;
  return segments.map((segment, i) => {
    const mine = [];
    let missing = i === segments.length - 1 ? Infinity : bare(segment.text);
    while (next < words.length && missing > 0) {
      mine.push(words[next]);
      missing -= bare(words[next].text);
      next += 1;
    }
    return mine;
  });
}

/** How many words at the start two lists of words have in common: the others are new. */
export function commonStart(before, now) {
  let same = 0;
  while (same < before.length && same < now.length && before[same] === now[same]) same += 1;
  return same;
}
