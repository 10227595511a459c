// Elements of the page. Text goes in as text: nothing here reads markup.

const SVG = "http://www.w3.org/2000/svg";

/** The element of index.html with that id. */
export function byId(id) {
  return document.getElementById(id);
}

/** A new element: make("p", { class: "note", lang: "en" }, "words", child, ...). */
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(key, "");
    else if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(key, String(value));
    }
  }
  element.append(...children.filter((each) => each !== null && each !== undefined));
  return element;
}

/** One of the symbols at the top of index.html; a decoration. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/** Says it to a screen reader, politely; the same words again are said again. */
export function say(words) {
  const region = byId("said");
  region.replaceChildren();
  requestAnimationFrame(() => region.append(make("p", {}, words)));
}
