// Formats numbers and times as text, and makes elements of them.
//
// File names are hostile input, so text is inserted into the page only as text (textContent), never as HTML.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

export function bytes(count) {
  let unit = 0;
  let value = count ?? 0;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit ? value.toFixed(value < 10 ? 2 : 1) : value} ${UNITS[unit]}`;
}

export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

// Formats a duration with one unit, so that the text seldom changes: for tables with many lines.
export function about(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h`;
  return `${Math.floor(whole / 86400)} d`;
}

// Converts a time to milliseconds since 1970. The server sends times in this unit or as RFC 3339.
export const ms = (time) => (typeof time === "number" ? time : Date.parse(time));
export const between = (from, to) => duration((ms(to) - ms(from)) / 1000);
export const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;
export const files = (number) => count(number, "file");

export const at = (id) => document.getElementById(id);

export function element(name, className, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

export function text(name, className, words) {
  const made = element(name, className);
  made.textContent = words;
  return made;
}

// Sets an element's text only if it has changed, so that a selection or a screen reader is not disturbed.
export function say(node, words) {
  if (node.textContent !== words) node.textContent = words;
}

export function set(node, name, value) {
  if ((node.dataset[name] ?? "") !== value) node.dataset[name] = value;
}

export function button(words, act, label) {
  const made = text("button", "", words);
  made.type = "button";
  if (label) made.setAttribute("aria-label", label);
  made.addEventListener("click", act);
  return made;
}

export function link(words, to) {
  const made = text("a", "", words);
  made.href = to;
  return made;
}

export const vesselLink = (name) => link(name, `#vessel/${encodeURIComponent(name)}`);

// Adds a term with an empty value to a list of facts. Returns the value's element.
export function fact(list, name) {
  const value = document.createElement("dd");
  list.append(element("div", "", text("dt", "", name), value));
  return value;
}

// Replaces the children of a list, unless the list has the focus: a button that is about to be used must not vanish.
export function fill(list, items, none) {
  if (list.contains(document.activeElement)) return;
  if (items.length) {
    list.replaceChildren(...items);
  } else if (list.tagName === "TBODY") {
    const cell = text("td", "none", none);
    cell.colSpan = 9;
    list.replaceChildren(element("tr", "", cell));
  } else {
    list.replaceChildren(text("li", "none", none));
  }
}
