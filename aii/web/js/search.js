// Finding words, whatever their case and accents. No document here.

/** A text without case and accents, and for each of its characters the place it came from. */
function folded(text) {
  let plain = "";
  const places = [];
  let place = 0;
  for (const character of text) {
    const simple = character.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();
    for (let i = 0; i < simple.length; i += 1) places.push(place);
    plain += simple;
    place += character.length;
  }
  places.push(text.length);
  return { plain, places };
}

/** The words of what was typed, ready to be looked for. */
export function terms(query) {
  return folded(query).plain.split(/\s+/).filter(Boolean);
}

/** Whether each of the terms is somewhere in one of the texts. */
export function matches(wanted, texts) {
  if (wanted.length === 0) return true;
  const all = texts.map((text) => folded(text).plain).join("\n");
  return wanted.every((term) => all.includes(term));
}

/** The text cut into [{ text, hit }] where the terms stand in it. */
export function highlight(text, wanted) {
  if (wanted.length === 0 || text === "") return [{ text, hit: false }];
  const { plain, places } = folded(text);
  const marked = new Array(text.length).fill(false);
  for (const term of wanted) {
    for (let at = plain.indexOf(term); at >= 0; at = plain.indexOf(term, at + 1)) {
      let end = places[at + term.length];
      // An accent written as a character of its own belongs to the letter before it.
      while (end < text.length && /\p{M}/u.test(text[end])) end += 1;
      marked.fill(true, places[at], end);
    }
  }
  const parts = [];
  for (let i = 0; i < text.length; i += 1) {
    if (parts.length === 0 || parts.at(-1).hit !== marked[i]) parts.push({ text: "", hit: marked[i] });
    parts.at(-1).text += text[i];
  }
  return parts;
}
