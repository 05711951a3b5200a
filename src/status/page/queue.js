// A list of waiting files, loaded page by page, with a search: the queue of one vessel or of all vessels.

import { bytes, between, button, duration, element, say, text, vesselLink } from "/words.js";
import { forgetFile, mayOrder, onOrders, retryFile } from "/orders.js";

const PAGE = 50;
// Maximum number of files in the list, to bound the page's memory. Beyond it, the first files are removed when more are
// shown.
const MOST = 1000;
// Maximum number of requests for one page of the list: the server answers a search through a long queue in parts, some
// of them empty.
const PARTS = 40;
const STATES = [["", "all"], ["waiting", "waiting"], ["held", "held"], ["sending", "sending"], ["put-off", "postponed"], ["parked", "parked"]];
const WORDS = { waiting: "waits", held: "is held", sending: "is being sent", "put-off": "postponed", parked: "parked" };

function kindOf(entry) {
  if (entry.kind === "gone") return "deletion";
  return entry.kind === "file" ? bytes(entry.bytes) : entry.kind;
}

function row(entry, now, withVessel) {
  const item = element("li", `waiting ${entry.state}`);
  const state = entry.state === "sending" && entry.bytes
    ? `is being sent, ${Math.floor((entry.taken * 100) / entry.bytes)} %` : WORDS[entry.state];
  const facts = [kindOf(entry), `for ${between(entry.since, now)}`];
  if (entry.attempts) facts.push(`${entry.attempts} failed ${entry.attempts === 1 ? "attempt" : "attempts"}`);
  if (entry.eta_seconds !== null) facts.push(`sent in about ${duration(entry.eta_seconds)}`);
  const name = element("span", "file", text("strong", "", `${entry.directory}/${entry.path}`));
  if (withVessel) name.append(" for ", vesselLink(entry.vessel));
  item.append(element("div", "top", name, text("span", "state", state)), text("p", "soft", facts.join(", ")));
  const why = entry.reason ?? entry.hold;
  if (why) {
    const next = entry.next_try ? ` (next try in ${between(now, entry.next_try)})` : "";
    item.append(text("p", "reason", `${why}${next}`));
  }
  if (mayOrder()) {
    const file = `${entry.directory}/${entry.path}`;
    const orders = element("p", "orders", button("Forget", () => forgetFile(entry), `Forget ${file}`));
    if (entry.attempts) orders.prepend(button("Retry now", () => retryFile(entry), `Retry ${file} now`));
    item.append(orders);
  }
  return item;
}

// Creates the list. `vessel` names the vessel whose files are listed; without it, the files of all vessels are listed.
export function queueList(vessel, title) {
  const root = element("section", "queue");
  const heading = text("h2", "", title);
  const search = element("input");
  const [filters, list, note] = [element("div", "filters"), element("ul", "list"), text("p", "soft", "")];
  const more = button("Show more", () => load(true));
  const first = button("Back to the first", () => {
    load(false);
    root.scrollIntoView();
  });
  search.type = "search";
  search.autocomplete = "off";
  search.placeholder = "part of the path";
  filters.setAttribute("role", "group");
  filters.setAttribute("aria-label", "State");
  note.setAttribute("role", "status");
  [more.hidden, first.hidden] = [true, true];
  let [state, after, asked, shown, cursors] = ["", null, 0, 0, false];
  for (const [value, words] of STATES) {
    const made = button(words, () => {
      state = value;
      for (const other of filters.children) other.setAttribute("aria-pressed", String(other === made));
      load(false);
    });
    made.setAttribute("aria-pressed", String(value === state));
    filters.append(made);
  }
  let typing = 0;
  search.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => load(false), 250);
  });

  async function page(limit, from) {
    const query = new URLSearchParams({ limit: String(limit) });
    if (vessel) query.set("vessel", vessel);
    if (state) query.set("state", state);
    if (search.value) query.set("search", search.value);
    if (from) query.set("after", from);
    const answer = await fetch(`/api/queue?${query}`);
    if (!answer.ok) throw new Error((await answer.text()).trim());
    return answer.json();
  }

  // Loads the first page, or with `on` the next one. With `quiet`, shows no progress. Drops the answer to a request if
  // a newer request was made.
  async function load(on, quiet) {
    const mine = ++asked;
    let [from, found, parts, now] = [on ? after : null, [], 0, null];
    try {
      do {
        if (!quiet) say(note, parts ? "Searching …" : "Loading …");
        const answer = await page(PAGE - found.length, from);
        if (mine !== asked) return;
        found.push(...answer.deliveries);
        [from, now, parts] = [answer.next, answer.at, parts + 1];
      } while (from && found.length < PAGE && parts < PARTS);
    } catch (error) {
      if (mine === asked) say(note, `The queue can't be shown: ${error.message}`);
      return;
    }
    after = from;
    cursors = on;
    const items = found.map((entry) => row(entry, now, !vessel));
    if (on) list.append(...items);
    else if (!(quiet && list.contains(document.activeElement))) list.replaceChildren(...items);
    shown = on ? shown + items.length : items.length;
    while (list.children.length > MOST) list.firstElementChild.remove();
    const passed = Math.max(0, shown - MOST);
    [more.hidden, first.hidden] = [!after, !passed];
    const nothing = search.value || state ? "No file matches." : "No file waits.";
    const range = passed ? `${passed + 1} to ${shown} shown` : `${shown} shown`;
    say(note, shown ? `${range}${after ? ", more wait" : ""}` : after ? "Nothing found yet; there is more to search." : nothing);
  }

  const find = element("label", "find", "Search ", search);
  root.append(element("div", "bar", heading, filters, find), list, note, more, first);
  // After an order, the button that was used vanishes with its line, so the focus moves to the search.
  onOrders(() => {
    if (list.contains(document.activeElement)) search.focus();
    load(false);
  }, root);
  load(false);
  // Reloads the list, unless further pages were loaded or the page is hidden. A list that has the focus is not
  // replaced.
  const refresh = () => { if (!cursors && !document.hidden) load(false, true); };
  return { root, refresh, focus: () => search.focus() };
}
