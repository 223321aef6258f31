// The few things that every view does with the document.

/** The element with this id. */
export const byId = (id) => document.getElementById(id);

/** An element with properties, attributes (names with a dash, role, ...) and children. */
export function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") made.className = value;
    else if (name === "on") for (const [type, run] of Object.entries(value)) made.addEventListener(type, run);
    else if (name === "data") Object.assign(made.dataset, value);
    else if (name in made && !name.includes("-")) made[name] = value;
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** An icon of the page's sprite; it says nothing to a screen reader. */
export function icon(name) {
  const svg = svgEl("svg", { class: "icon", "aria-hidden": "true" });
  svg.append(svgEl("use", { href: `#icon-${name}` }));
  return svg;
}

/** An element of SVG with attributes. */
export function svgEl(tag, attributes = {}) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

/** Set a text only where it differs, so that nothing is announced or repainted twice. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Whether two lists have the very same values. */
export function sameParts(a, b) {
  return a.length === b.length && a.every((part, i) => part === b[i]);
}

/** Parts of search.highlight as nodes, hits as <mark>. */
export function marked(parts) {
  return parts.map(({ text, hit }) => (hit ? el("mark", {}, text) : text));
}

/** A function that runs ``draw`` once before the next frame, however often it is called. */
export function onNextFrame(draw) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      draw();
    });
  };
}

/** Have ``text`` said by a screen reader, politely. */
export function say(text) {
  byId("said").textContent = text;
}

/** Give the user a file. */
export function download(name, content, type) {
  const address = URL.createObjectURL(new Blob([content], { type: `${type};charset=utf-8` }));
  el("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}
