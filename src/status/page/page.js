// The status page: shows the document that /api/events gives, again and again.
//
// File names are hostile input. Text gets into the page as text (textContent) and in no other way.

import { chart } from "/chart.js";

const REACH = 300;
// With more vessels than this, each takes a line, and those in trouble come first.
const MANY = 12;
const at = (id) => document.getElementById(id);
const cards = new Map();
let token = sessionStorage.getItem("token") ?? "";
let mayOrder = false;

// ---- words ----

function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let unit = 0;
  let value = count;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit ? value.toFixed(2) : value} ${units[unit]}`;
}

function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

const between = (from, to) => duration((Date.parse(to) - Date.parse(from)) / 1000);
const files = (count) => `${count} ${count === 1 ? "file" : "files"}`;

// ---- elements ----

function element(name, className, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

function text(name, className, words) {
  const made = element(name, className);
  made.textContent = words;
  return made;
}

// Writes only what has changed, so that a selection or a screen reader is not disturbed.
function say(node, words) {
  if (node.textContent !== words) node.textContent = words;
}

function fact(list, name) {
  const value = document.createElement("dd");
  list.append(element("div", "", text("dt", "", name), value));
  return value;
}

function orderButton(words, order) {
  const button = text("button", "", words);
  button.type = "button";
  button.addEventListener("click", () => give(order));
  return button;
}

// ---- vessels ----

function card(name) {
  const known = cards.get(name);
  if (known) return known;
  const list = document.createElement("dl");
  const made = {
    root: document.createElement("li"),
    state: text("span", "state", ""),
    more: text("button", "more", "more"),
    reason: text("p", "reason", ""),
    waiting: fact(list, "Waiting"),
    left: fact(list, "Time left"),
    rate: fact(list, "Rate"),
    oldest: fact(list, "Oldest waiting"),
    parked: fact(list, "Parked"),
    expired: fact(list, "Expired"),
    window: fact(list, "Window"),
    last: fact(list, "Last received"),
    today: fact(list, "On the link today"),
    ways: text("p", "reason", ""),
    transfers: element("div", "transfers"),
    orders: element("div", "orders"),
    chart: chart(REACH, (most) => `${bytes(most)}/s`),
    offered: "",
  };
  made.root.append(
    element("div", "top", text("h3", "", name), made.state, made.more),
    made.reason, made.ways, list, made.transfers, made.chart.svg, made.chart.caption, made.orders,
  );
  made.more.type = "button";
  made.more.setAttribute("aria-label", `More about ${name}`);
  made.more.setAttribute("aria-expanded", "false");
  made.more.addEventListener("click", () => {
    const open = made.root.toggleAttribute("data-open");
    made.more.setAttribute("aria-expanded", String(open));
    say(made.more, open ? "less" : "more");
  });
  cards.set(name, made);
  return made;
}

function wordsOfWay(way) {
  const carries = way.why === null ? "" : `carries (${way.why}), `;
  const cost = way.cost_month > 0 ? `, ${way.cost_month.toFixed(2)} ${way.currency}`.trimEnd() : "";
  return `${way.name}: ${carries}${bytes(way.bytes_today)} today, ${bytes(way.bytes_month)} this month${cost}`;
}

function transferRow() {
  const row = { root: element("div", "transfer"), name: text("span", "", ""), part: text("span", "soft", ""), bar: document.createElement("progress") };
  row.root.append(element("div", "top", row.name, row.part), row.bar);
  return row;
}

function showTransfers(card, transfers) {
  card.rows ??= [];
  while (card.rows.length > transfers.length) card.rows.pop().root.remove();
  while (card.rows.length < transfers.length) {
    const row = transferRow();
    card.rows.push(row);
    card.transfers.append(row.root);
  }
  transfers.forEach((transfer, index) => {
    const row = card.rows[index];
    say(row.name, `${transfer.directory}/${transfer.path}`);
    say(row.part, `${bytes(transfer.taken)} of ${bytes(transfer.bytes)}`);
    row.bar.max = Math.max(1, transfer.bytes);
    row.bar.value = transfer.bytes ? transfer.taken : 1;
    row.bar.setAttribute("aria-label", `${transfer.directory}/${transfer.path}`);
  });
}

function showOrders(card, vessel) {
  const offered = mayOrder ? vessel.link.state : "";
  if (card.offered === offered) return;
  card.offered = offered;
  card.orders.replaceChildren();
  if (!mayOrder) return;
  const paused = vessel.link.state === "paused";
  card.orders.append(orderButton(paused ? `Resume ${vessel.name}` : `Pause ${vessel.name}`, { order: paused ? "resume" : "pause", vessel: vessel.name }));
  if (vessel.link.state === "away") card.orders.append(" ", orderButton(`Try ${vessel.name} now`, { order: "retry", vessel: vessel.name }));
}

// When the vessel's window opens, or those of the directories with files for it.
function windowOf(vessel, now) {
  if (vessel.opens) return `opens in ${between(now, vessel.opens)}`;
  const closed = vessel.queues.filter((queue) => queue.opens);
  if (!closed.length) return "open";
  return closed.map((queue) => `${queue.directory}: opens in ${between(now, queue.opens)}`).join(", ");
}

// Why the vessel is away or paused, or else why files for it were put off.
function reason({ link, retried_first: first, put_off: count }, now) {
  if (link.reason) {
    const what = link.state === "paused" ? "resumed" : "next try";
    return link.next_try ? `${link.reason}; ${what} in ${between(now, link.next_try)}` : link.reason;
  }
  return first ? `${files(count)} put off, first ${first.directory}/${first.path}: ${first.reason}` : "";
}

// The worst first: away, parked, put off, paused, connecting, the rest.
function rank(vessel) {
  if (vessel.link.state === "away") return 0;
  if (vessel.parked) return 1;
  if (vessel.put_off) return 2;
  return ["paused", "closed", "connecting", "off", "connected"].indexOf(vessel.link.state) + 3;
}

function showVessel(vessel, now) {
  const shown = card(vessel.name);
  const { link } = vessel;
  if (shown.root.className !== link.state) shown.root.className = link.state;
  shown.root.dataset.vessel = vessel.name;
  const trouble = vessel.parked ? "parked" : vessel.put_off ? "put-off" : "";
  if ((shown.root.dataset.trouble ?? "") !== trouble) shown.root.dataset.trouble = trouble;
  const held = [vessel.parked && `${vessel.parked} parked`, vessel.put_off && `${vessel.put_off} put off`].filter(Boolean);
  say(shown.state, [link.since ? `${link.state} ${between(link.since, now)}` : link.state, ...held].join(", "));
  say(shown.reason, reason(vessel, now));
  say(shown.waiting, `${files(vessel.backlog.files)}, ${bytes(vessel.backlog.bytes)}`);
  shown.waiting.dataset.bytes = vessel.backlog.bytes;
  shown.waiting.dataset.files = vessel.backlog.files;
  say(shown.left, vessel.eta_seconds === null ? "–" : duration(vessel.eta_seconds));
  say(shown.rate, vessel.rate ? `${bytes(vessel.rate)}/s` : "–");
  say(shown.oldest, vessel.oldest ? between(vessel.oldest.since, now) : "–");
  say(shown.parked, String(vessel.parked));
  say(shown.expired, String(vessel.expired));
  say(shown.window, windowOf(vessel, now));
  say(shown.last, vessel.last_acknowledged ? `${between(vessel.last_acknowledged, now)} ago` : "never");
  const today = vessel.link_bytes_today;
  say(shown.today, today ? `${bytes(today.sent)} sent, ${bytes(today.received)} received` : "–");
  say(shown.ways, (vessel.ways || []).map(wordsOfWay).join("; "));
  showTransfers(shown, vessel.transfers);
  showOrders(shown, vessel);
  return shown.root;
}

// ---- the rest ----

function showDirectory(directory) {
  const row = document.createElement("tr");
  row.dataset.directory = directory.name;
  const name = text("th", "", directory.name);
  name.scope = "row";
  if (directory.trouble) name.append(text("p", "reason", directory.trouble));
  row.append(name);
  for (const words of [directory.waiting.files, bytes(directory.waiting.bytes), directory.in_flight, directory.parked,
    `${directory.retired_today.files} (${bytes(directory.retired_today.bytes)})`]) row.append(text("td", "", String(words)));
  return row;
}

function showParked(parked, now) {
  const item = element("li", "", element("div", "top",
    text("strong", "", `${parked.directory}/${parked.path}`), text("span", "soft", `for ${parked.vessel}`)),
  text("p", "reason", parked.reason), text("p", "soft", `next try in ${between(now, parked.next_try)}`));
  if (mayOrder) item.append(orderButton("Try now", { order: "retry", vessel: parked.vessel, deliveries: [parked.delivery] }));
  return item;
}

function showError(error, now) {
  const where = [error.vessel, error.file].filter(Boolean).join(", ");
  return element("li", "", element("div", "top", text("strong", "", where), text("span", "soft", `${between(error.at, now)} ago`)),
    text("p", "reason", error.reason));
}

function showDelivery(delivery, now) {
  return element("li", "", element("div", "top",
    text("span", "", `${delivery.directory}/${delivery.path}`), text("span", "soft", `${between(delivery.at, now)} ago`)),
  text("p", "soft", `${bytes(delivery.bytes)} to ${delivery.vessel}, ${delivery.verified}`));
}

// Replaces a list, but not one that holds the focus: a button must not vanish under a finger.
function fill(id, items, none) {
  const list = at(id);
  if (list.contains(document.activeElement)) return;
  list.replaceChildren(...(items.length ? items : [text(list.tagName === "TBODY" ? "tr" : "li", "none", none)]));
}

function summary(status) {
  if (!status.daemon) return "contentmonster is not running";
  const waiting = status.vessels.reduce((sum, vessel) => sum + vessel.backlog.files, 0);
  const left = status.vessels.reduce((sum, vessel) => sum + vessel.backlog.bytes, 0);
  const away = status.vessels.filter((vessel) => vessel.link.state === "away").length;
  const words = waiting ? `${waiting} pending ${waiting === 1 ? "delivery" : "deliveries"} (${bytes(left)})` : "Everything is delivered";
  return away ? `${words}; ${away} of ${status.vessels.length} vessels away` : words;
}

function show(status) {
  const now = status.at;
  document.body.dataset.at = now;
  say(at("summary"), summary(status));
  const list = at("vessels");
  const many = status.vessels.length > MANY;
  document.body.classList.toggle("many", many);
  const vessels = many ? status.vessels.toSorted((a, b) => rank(a) - rank(b)) : status.vessels;
  vessels.forEach((vessel, index) => {
    const root = showVessel(vessel, now);
    if (list.children[index] !== root) list.insertBefore(root, list.children[index] ?? null);
  });
  fill("directories", status.directories.map(showDirectory), "No directories.");
  fill("parked", status.parked.map((parked) => showParked(parked, now)), "None.");
  fill("errors", status.errors.map((error) => showError(error, now)), "None.");
  fill("deliveries", status.deliveries.map((delivery) => showDelivery(delivery, now)), "None yet.");
  say(at("ledger"), `Ledger ${status.ledger.file}, ${bytes(status.ledger.bytes)}${status.daemon ? `; contentmonster ${status.daemon.release}` : ""}`);
}

// ---- what comes in and goes out ----

async function drawCharts() {
  const answer = await fetch("/api/throughput");
  if (!answer.ok) return;
  for (const [vessel, values] of Object.entries(await answer.json())) cards.get(vessel)?.chart.show(values);
}

function headers() {
  return token ? { Authorization: `Bearer ${token}` } : {};
}

async function give(order) {
  const answer = await fetch("/api/orders", {
    method: "POST", headers: { ...headers(), "Content-Type": "application/json" }, body: JSON.stringify(order),
  });
  if (!answer.ok) say(at("unlocked"), await answer.text());
}

async function askAccess() {
  const answer = await fetch("/api/access", { headers: headers() });
  if (!answer.ok) return;
  const access = await answer.json();
  mayOrder = access.granted;
  at("unlock").hidden = !access.orders || access.granted;
  if (access.orders && !access.granted && token) say(at("unlocked"), "The token is wrong.");
}

at("unlock").addEventListener("submit", async (event) => {
  event.preventDefault();
  token = at("token").value;
  sessionStorage.setItem("token", token);
  await askAccess();
});

function listen() {
  const events = new EventSource("/api/events");
  events.addEventListener("status", (event) => show(JSON.parse(event.data)));
  events.addEventListener("trouble", (event) => say(at("summary"), event.data));
  events.addEventListener("error", () => {
    say(at("summary"), "No answer from contentmonster; retrying …");
    // A refusal is not tried again by itself.
    if (events.readyState === EventSource.CLOSED) setTimeout(listen, 3000);
  });
}

askAccess().catch(() => {});
listen();
const charts = () => drawCharts().catch(() => {});
setTimeout(charts, 700);
setInterval(charts, 2000);
