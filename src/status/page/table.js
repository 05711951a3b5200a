// The table of the fleet: a line for each vessel, first the vessels in trouble, then the others by their groups.

import { about, at, button, bytes, element, files, say, set, text, vesselLink } from "/words.js";

// Ranks below this one mean trouble; see `Rank` in status/rank.rs.
const FINE = 3;
// With more vessels than this, the sections of groups are folded at first.
const MANY = 15;
const FILTERS = [
  ["all", "All", () => true],
  ["trouble", "Only trouble", (vessel) => vessel.rank < FINE],
  ["away", "Away", (vessel) => vessel.state === "away"],
  ["waiting", "Waiting", (vessel) => Boolean(vessel.files)],
  ["paused", "Paused", (vessel) => vessel.state === "paused"],
];

const rows = new Map();
const bodies = new Map();
const folded = new Map();
let show = "all";
let known = null;

function row(name) {
  const cells = Object.fromEntries(["state", "files", "bytes", "oldest", "rate", "left", "last"].map((cell) => [cell, element("td", cell)]));
  const reason = text("p", "reason", "");
  const title = element("th", "", vesselLink(name), reason);
  title.scope = "row";
  for (const [cell, label] of [["files", "waiting"], ["oldest", "oldest"], ["rate", "rate"], ["left", "left"], ["last", "last"]]) cells[cell].dataset.label = label;
  const root = element("tr", "", title, ...Object.values(cells));
  root.dataset.vessel = name;
  return { root, reason, ...cells };
}

function stateOf(vessel, now) {
  const since = vessel.since ? `${vessel.state} ${about((now - vessel.since) / 1000)}` : vessel.state;
  return [since, vessel.parked && `${vessel.parked} parked`, vessel.put_off && `${vessel.put_off} postponed`].filter(Boolean).join(", ");
}

function reasonOf(vessel, now) {
  if (!vessel.reason) return vessel.opens ? `window opens in ${about((vessel.opens - now) / 1000)}` : "";
  const what = vessel.state === "paused" ? "resumes" : "next try";
  return vessel.next_try ? `${vessel.reason} (${what} in ${about((vessel.next_try - now) / 1000)})` : vessel.reason;
}

function showRow(name, vessel, now) {
  let shown = rows.get(name);
  if (!shown) rows.set(name, (shown = row(name)));
  set(shown.root, "state", vessel.state);
  set(shown.root, "rank", String(vessel.rank));
  say(shown.state, stateOf(vessel, now));
  say(shown.reason, reasonOf(vessel, now));
  say(shown.files, vessel.files ? String(vessel.files) : "–");
  set(shown.files, "files", String(vessel.files ?? 0));
  set(shown.files, "bytes", String(vessel.bytes ?? 0));
  say(shown.bytes, vessel.files ? bytes(vessel.bytes) : "–");
  say(shown.oldest, vessel.oldest ? about((now - vessel.oldest) / 1000) : "–");
  say(shown.rate, vessel.rate ? `${bytes(vessel.rate)}/s` : "–");
  say(shown.left, vessel.eta === undefined ? "–" : about(vessel.eta));
  say(shown.last, vessel.last ? `${about((now - vessel.last) / 1000)} ago` : "never");
  return shown.root;
}

function body(key) {
  let made = bodies.get(key);
  if (made) return made;
  const [title, about_] = [button("", () => {
    folded.set(key, title.getAttribute("aria-expanded") === "true");
    draw();
  }), text("span", "soft", "")];
  const cell = element("th", "", title, " ", about_);
  cell.colSpan = 8;
  cell.scope = "rowgroup";
  const head = element("tr", "group", cell);
  made = { root: element("tbody", ""), head, title, about: about_ };
  made.root.append(head);
  bodies.set(key, made);
  return made;
}

// Divides the vessels into sections: first the vessels in trouble, then one section for each group. A vessel with
// several groups is in the section of the last one.
function sections(vessels) {
  const all = new Map();
  const worst = vessels.filter(([, vessel]) => vessel.rank < FINE);
  if (worst.length) all.set("!", worst);
  const grouped = vessels.some(([, vessel]) => vessel.groups);
  for (const one of vessels.filter(([, vessel]) => vessel.rank >= FINE)) {
    const key = grouped ? `=${one[1].groups?.at(-1) ?? ""}` : "*";
    if (!all.has(key)) all.set(key, []);
    all.get(key).push(one);
  }
  return all;
}

function titleOf(key, total) {
  if (key === "!") return "In trouble";
  if (key === "*") return total === rows.size ? "All vessels" : "All others";
  return key === "=" ? "Without a group" : key.slice(1);
}

function matches(name, vessel, words) {
  const of = [name, ...(vessel.groups ?? []), vessel.reason ?? "", vessel.state].join(" ").toLowerCase();
  return words.every((word) => of.includes(word));
}

function draw() {
  if (!known) return;
  const now = known.at;
  const table = at("vessels");
  const words = at("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const wanted = FILTERS.find(([key]) => key === show)[2];
  const all = Object.entries(known.vessels);
  for (const name of rows.keys()) {
    if (name in known.vessels) continue;
    rows.get(name).root.remove();
    rows.delete(name);
  }
  for (const [name, vessel] of all) showRow(name, vessel, now);
  const shown = all.filter(([name, vessel]) => wanted(vessel) && matches(name, vessel, words));
  shown.sort(([, a], [, b]) => a.rank - b.rank || a.order - b.order);
  const found = sections(shown);
  // While a search or a filter is active, no section is folded.
  const looking = words.length > 0 || show !== "all";
  for (const [key, made] of bodies) if (!found.has(key)) made.root.remove();
  let place = table.tHead.nextElementSibling;
  for (const [key, vessels] of found) {
    const made = body(key);
    const title = titleOf(key, vessels.length);
    const fold = !looking && (folded.get(key) ?? (key.startsWith("=") && all.length > MANY));
    say(made.title, title);
    made.title.setAttribute("aria-expanded", String(!fold));
    const waiting = vessels.reduce((sum, [, vessel]) => sum + (vessel.files ?? 0), 0);
    say(made.about, `${vessels.length} ${vessels.length === 1 ? "vessel" : "vessels"}${waiting ? `, ${files(waiting)} waiting` : ""}`);
    made.head.hidden = found.size === 1 && key === "*";
    const lines = fold ? [] : vessels.map(([name]) => rows.get(name).root);
    lines.forEach((line, index) => {
      if (made.root.children[index + 1] !== line) made.root.insertBefore(line, made.root.children[index + 1] ?? null);
    });
    while (made.root.children.length > lines.length + 1) made.root.lastElementChild.remove();
    if (place === made.root) place = place.nextElementSibling;
    else table.insertBefore(made.root, place);
  }
  at("no-vessel").hidden = shown.length > 0;
  for (const [key, , is] of FILTERS) {
    const filter = at(`filter-${key}`);
    const number = all.filter(([, vessel]) => is(vessel)).length;
    say(filter.lastElementChild, String(number));
    filter.setAttribute("aria-pressed", String(key === show));
  }
}

for (const [key, words] of FILTERS) {
  const filter = button("", () => {
    show = key;
    draw();
  });
  filter.id = `filter-${key}`;
  filter.append(words, " ", text("span", "number", "0"));
  at("filters").append(filter);
}
at("search").addEventListener("input", draw);

// Shows the vessels of the fleet. `fleet.at` is the current time by the program's clock.
export function showVessels(fleet) {
  known = fleet;
  draw();
}
