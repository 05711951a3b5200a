// The status page: shows the fleet, one vessel or the queue, depending on the part of the address after #.

import { at, between, button, bytes, count, element, fill, say, text, vesselLink } from "/words.js";
import { askAccess, mayOrder, onOrders, pauseDirectory, resumeDirectory } from "/orders.js";
import { showVessels } from "/table.js";
import { openVessel, patched } from "/vessel.js";
import { queueList } from "/queue.js";

let fleet = null;
// Time at which the last document arrived, by the clock of the browser.
let came = 0;
// Closes the view that is open.
let close = () => {};

// ---- the fleet ----

const directories = new Map();

function directoryRow(name) {
  const cells = ["waiting", "bytes", "in flight", "parked", "retired today"].map((label) => {
    const cell = element("td", "");
    cell.dataset.label = label;
    return cell;
  });
  const [note, trouble, orders] = [text("p", "note", ""), text("p", "reason", ""), element("td", "orders")];
  const title = element("th", "", name, note, trouble);
  title.scope = "row";
  const root = element("tr", "", title, ...cells, orders);
  root.dataset.directory = name;
  return { root, note, trouble, cells, orders, offered: "" };
}

function pauseOf(directory, now) {
  if (!directory.paused) return "";
  const until = directory.paused_until ? `, resumes in ${between(now, directory.paused_until)}` : "";
  return `paused for ${between(directory.paused, now)}${until}${directory.note ? `: ${directory.note}` : ""}`;
}

function showDirectory(name, directory, now) {
  let row = directories.get(name);
  if (!row) directories.set(name, (row = directoryRow(name)));
  say(row.note, pauseOf(directory, now));
  say(row.trouble, directory.trouble ?? "");
  const values = [directory.files, bytes(directory.bytes), directory.sending, directory.parked, directory.retired];
  values.forEach((value, index) => say(row.cells[index], String(value)));
  const offered = !mayOrder() ? "" : directory.paused ? "Resume" : "Pause";
  if (row.offered !== offered) {
    const focused = row.orders.contains(document.activeElement);
    row.offered = offered;
    const act = offered === "Pause" ? pauseDirectory : resumeDirectory;
    row.orders.replaceChildren(...(offered ? [button(offered, () => act(name), `${offered} the directory ${name}`)] : []));
    if (focused) row.orders.firstElementChild?.focus();
  }
  return row.root;
}

function showDirectories(now) {
  const all = Object.entries(fleet.directories).sort(([, a], [, b]) => a.order - b.order);
  for (const [name, row] of directories) {
    if (name in fleet.directories) continue;
    row.root.remove();
    directories.delete(name);
  }
  const place = at("directories");
  all.forEach(([name, directory], index) => {
    const root = showDirectory(name, directory, now);
    if (place.children[index] !== root) place.insertBefore(root, place.children[index] ?? null);
  });
}

function shoreItem([name, shore], now) {
  const state = shore.lost ? "lease expired" : shore.drained ? "drained" : `since ${between(shore.since, now)}`;
  const served = [count(shore.vessels, "vessel"), shore.directories === 1 ? "1 directory" : `${shore.directories} directories`];
  if (shore.housekeeping) served.push("housekeeping");
  return element("li", "", element("div", "top", text("strong", "", name || "(alone)"), text("span", "soft", state)),
    text("p", "soft", `serves ${served.join(", ")}; ${shore.holder}`));
}

function errorItem(error, now) {
  const where = element("strong", "");
  if (error.vessel) where.append(vesselLink(error.vessel), error.file ? ", " : "");
  where.append(error.file ?? "");
  return element("li", "", element("div", "top", where, text("span", "soft", `${between(error.at, now)} ago`)),
    text("p", "reason", error.reason));
}

function deliveryItem(delivery, now) {
  return element("li", "", element("div", "top",
    text("span", "file", `${delivery.directory}/${delivery.path}`), text("span", "soft", `${between(delivery.at, now)} ago`)),
  element("p", "soft", `${bytes(delivery.bytes)} to `, vesselLink(delivery.vessel), `, ${delivery.verified}`));
}

function summary() {
  if (!fleet.release) return "contentmonster is not running";
  const vessels = Object.values(fleet.vessels);
  const [waiting, left] = ["files", "bytes"].map((key) => vessels.reduce((sum, vessel) => sum + (vessel[key] ?? 0), 0));
  const away = vessels.filter((vessel) => vessel.state === "away").length;
  const trouble = vessels.filter((vessel) => vessel.rank < 3).length;
  const words = [waiting ? `${count(waiting, "file")} to send (${bytes(left)})` : "Everything is delivered"];
  if (trouble) words.push(`${trouble} of ${count(vessels.length, "vessel")} in trouble`);
  if (away) words.push(`${away} away`);
  if (fleet.reload?.problems?.length) words.push("the last reload of the settings failed");
  for (const hook of fleet.hooks ?? []) words.push(`${hook.name} fails: ${hook.failing}`);
  for (const disk of fleet.low_disks ?? []) words.push(`only ${bytes(disk.free_bytes)} free at ${disk.path}`);
  return words.join("; ");
}

// For each list, a key of the content that was drawn last. A list is drawn again if its content has changed, and every
// 10 s to update the ages.
const drawn = new Map();

function list(id, key, items, none) {
  if (drawn.get(id) === key) return;
  drawn.set(id, key);
  fill(at(id), items(), none);
}

function showFleet() {
  if (!fleet) return;
  const now = fleet.at + (performance.now() - came);
  say(at("summary"), summary());
  document.body.dataset.at = String(fleet.at);
  if (at("fleet").hidden) return;
  showVessels({ vessels: fleet.vessels, at: now });
  const minute = Math.floor(now / 10000);
  showDirectories(now);
  const shores = Object.entries(fleet.shores ?? {}).sort(([a], [b]) => (a < b ? -1 : 1));
  at("shores-section").hidden = !shores.length;
  list("shores", JSON.stringify([shores, minute]), () => shores.map((shore) => shoreItem(shore, now)), "None.");
  list("errors", JSON.stringify([fleet.errors, minute]), () => fleet.errors.map((error) => errorItem(error, now)), "None.");
  list("deliveries", JSON.stringify([fleet.deliveries, minute]), () => fleet.deliveries.map((one) => deliveryItem(one, now)), "None yet.");
  say(at("ledger"), `Ledger ${fleet.ledger}, ${bytes(fleet.ledger_bytes)}${fleet.release ? `; contentmonster ${fleet.release}` : ""}`);
}

// ---- the views ----

function openQueue(place) {
  const all = queueList(null, "Files that wait, and why");
  place.replaceChildren(all.root);
  const timer = setInterval(all.refresh, 5000);
  return () => {
    clearInterval(timer);
    place.replaceChildren();
  };
}

function route() {
  close();
  close = () => {};
  const [view, name] = location.hash.slice(1).split("/");
  const shown = view === "vessel" && name ? "vessel" : view === "queue" ? "queue" : "fleet";
  for (const id of ["fleet", "vessel", "queue"]) at(id).hidden = id !== shown;
  for (const one of document.querySelectorAll("nav a")) {
    if (one.hash === (shown === "queue" ? "#queue" : shown === "fleet" ? "" : "-")) one.setAttribute("aria-current", "page");
    else one.removeAttribute("aria-current");
  }
  if (shown === "vessel") close = openVessel(decodeURIComponent(name), at("vessel"));
  else if (shown === "queue") close = openQueue(at("queue"));
  document.title = shown === "vessel" ? `${decodeURIComponent(name)} – contentmonster` : "contentmonster";
  showFleet();
}

addEventListener("hashchange", () => {
  route();
  // Moves the focus, so that a screen reader and the keyboard continue in the new view.
  at("main").focus({ preventScroll: true });
  scrollTo(0, 0);
});

addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, dialog") !== null;
  if (event.key === "/" && !typing) {
    event.preventDefault();
    document.querySelector("main > :not([hidden]) input[type=search]")?.focus();
  } else if (event.key === "Escape" && !typing && !at("vessel").hidden) {
    location.hash = "";
  }
});

// ---- events from the server ----

function listen() {
  const events = new EventSource("/api/changes");
  const update = (document_) => {
    [fleet, came] = [document_, performance.now()];
    showFleet();
  };
  events.addEventListener("whole", (event) => update(JSON.parse(event.data)));
  events.addEventListener("change", (event) => update(patched(fleet, JSON.parse(event.data))));
  events.addEventListener("trouble", (event) => say(at("summary"), event.data));
  events.addEventListener("error", () => {
    say(at("summary"), "No answer from contentmonster; retrying …");
    // The browser does not reconnect by itself after the server has refused a connection.
    if (events.readyState === EventSource.CLOSED) setTimeout(listen, 3000);
  });
}

onOrders(showFleet);
listen();
askAccess().catch(() => {});
route();
// Redraws every second, because ages change even without new data.
setInterval(() => document.hidden || showFleet(), 1000);
