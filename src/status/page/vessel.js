// The view of one vessel: why its files wait, the running transfers, the queue, the delivered files, the throughput and
// the log lines.

import { between, button, bytes, duration, element, fact, files, fill, link, say, set, text } from "/words.js";
import { mayOrder, onOrders, pause, resume, retry } from "/orders.js";
import { chart } from "/chart.js";
import { queueList } from "/queue.js";

const REACH = 300;

// Applies a JSON merge patch (RFC 7396) to `target`, which may be changed, and returns the result.
export function patched(target, patch) {
  if (patch === null || typeof patch !== "object" || Array.isArray(patch)) return patch;
  const made = target !== null && typeof target === "object" && !Array.isArray(target) ? target : {};
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete made[key];
    else made[key] = patched(made[key], value);
  }
  return made;
}

function section(title) {
  const root = element("section", "", text("h2", "", title));
  return root;
}

function transferRow() {
  const row = { root: element("div", "transfer"), name: text("span", "", ""), part: text("span", "soft", ""), bar: document.createElement("progress") };
  row.root.append(element("div", "top", row.name, row.part), row.bar);
  return row;
}

function showTransfers(view, transfers) {
  view.transfers.hidden = !transfers.length;
  while (view.rows.length > transfers.length) view.rows.pop().root.remove();
  while (view.rows.length < transfers.length) {
    const row = transferRow();
    view.rows.push(row);
    view.transfers.append(row.root);
  }
  transfers.forEach((transfer, index) => {
    const row = view.rows[index];
    say(row.name, `${transfer.directory}/${transfer.path}`);
    say(row.part, `${bytes(transfer.taken)} of ${bytes(transfer.bytes)}`);
    row.bar.max = Math.max(1, transfer.bytes);
    row.bar.value = transfer.bytes ? transfer.taken : 1;
    row.bar.setAttribute("aria-label", `${transfer.directory}/${transfer.path}`);
  });
}

function showOrders(view, vessel) {
  const offered = mayOrder() ? vessel.link.state : "";
  if (view.offered === offered) return;
  view.offered = offered;
  view.orders.replaceChildren();
  if (!mayOrder()) return;
  const paused = vessel.link.state === "paused";
  view.orders.append(paused ? button("Resume", () => resume(vessel.name)) : button("Pause", () => pause(vessel.name)));
  if (!paused) view.orders.append(" ", button("Retry now", () => retry(vessel.name)));
}

// Describes when the vessel's window opens or, if it is open, why and until when directories with files for the vessel
// are held back.
function windowOf(vessel, now) {
  if (vessel.opens) return `opens in ${between(now, vessel.opens)}`;
  const what = ({ opens, held }) => {
    if (opens) return `opens in ${between(now, opens)}`;
    return held.until ? `${held.why}, continues in ${between(now, held.until)}` : held.why;
  };
  const closed = (vessel.queues ?? []).filter((queue) => queue.held);
  return closed.length ? closed.map((queue) => `${queue.directory}: ${what(queue)}`).join(", ") : "open";
}

function reasons(vessel, now) {
  const said = [];
  const { link: state, retried_first: first } = vessel;
  if (state.reason) {
    const what = state.state === "paused" ? "resumes" : "next try";
    said.push(state.next_try ? `${state.reason} (${what} in ${between(now, state.next_try)})` : state.reason);
  }
  if (vessel.parked) said.push(`${files(vessel.parked)} parked; the list below has the reasons`);
  if (first) said.push(`${files(vessel.put_off)} postponed; first to be retried: ${first.directory}/${first.path}: ${first.reason}`);
  return said;
}

function wordsOfWay(way) {
  const carries = way.why ? `in use (${way.why}), ` : "";
  const cost = way.cost_month > 0 ? `, ${way.cost_month.toFixed(2)} ${way.currency ?? ""}`.trimEnd() : "";
  return `${way.name}: ${carries}${bytes(way.bytes_today)} today, ${bytes(way.bytes_month)} this month${cost}`;
}

function showSpeed(view, speed) {
  view.speed.root.hidden = !speed;
  if (!speed) return;
  say(view.speed.verdict, speed.verdict);
  const path = speed.path;
  const dash = (value, words) => (value === undefined || value === null ? "–" : words(value));
  say(view.speed.way, dash(speed.way, String));
  say(view.speed.connections, String(path?.connections ?? 0));
  say(view.speed.congestion, dash(path?.congestion_control, String));
  say(view.speed.trip, dash(path?.round_trip_ms, (value) => `${value.toFixed(1)} ms (shortest ${path.shortest_round_trip_ms.toFixed(1)} ms)`));
  say(view.speed.lost, dash(path?.resent_percent, (value) => `${value.toFixed(2)} % (${bytes(path.resent_bytes)})`));
  say(view.speed.window, dash(path?.window_bytes, (value) => `${bytes(value)}, ${bytes(path.unanswered_bytes)} not acknowledged`));
  say(view.speed.limit, speed.rate_limit ? `${bytes(speed.rate_limit)}/s${speed.rate_limit_reached ? ", reached" : ", not reached"}` : "none");
  say(view.speed.cpu, `${Math.round(speed.cpu_percent ?? 0)} % of one processor`);
}

function make(name) {
  const root = element("div", "");
  const [list, speedList] = [document.createElement("dl"), document.createElement("dl")];
  const view = {
    root, name, rows: [], offered: "",
    state: text("p", "state", ""), reasons: element("ul", "reasons"), orders: element("p", "orders"),
    facts: Object.fromEntries([
      ["waiting", "Waiting"], ["left", "Time left"], ["rate", "Rate"], ["oldest", "Oldest waiting"], ["parked", "Parked"],
      ["expired", "Expired"], ["window", "Window"], ["last", "Last received"], ["received", "Received"],
      ["today", "On the link today"], ["month", "On the link this month"], ["groups", "Groups"],
    ].map(([key, words]) => [key, fact(list, words)])),
    ways: text("p", "soft", ""), shore: text("p", "soft", ""), transfers: section("Being sent"),
    chart: chart(REACH, (most) => `${bytes(most)}/s`),
    speed: {
      root: section("How fast, and why not faster"), verdict: text("p", "verdict", ""),
      ...Object.fromEntries([
        ["way", "Way"], ["connections", "Connections"], ["congestion", "Congestion control"], ["trip", "Round trip"],
        ["lost", "Lost and sent again"], ["window", "Window"], ["limit", "Rate limit"], ["cpu", "Processor"],
      ].map(([key, words]) => [key, fact(speedList, words)])),
    },
    queue: queueList(name, "Files that wait, and why"),
    history: element("ul", "list"), older: button("Show more", () => loadHistory(view, true)), log: element("ol", "list log"),
  };
  view.transfers.classList.add("transfers");
  view.speed.root.append(view.speed.verdict, speedList);
  const throughput = section("Throughput");
  throughput.append(view.chart.svg, view.chart.caption);
  const [history, log] = [section("Delivered"), section("Log lines")];
  history.append(view.history, view.older);
  log.append(view.log);
  view.title = text("h2", "name", name);
  root.append(
    element("p", "back", link("← Fleet", "#")), element("div", "top", view.title, view.state), view.reasons, view.orders, list,
    view.ways, view.shore, view.transfers, view.queue.root, throughput, view.speed.root, history, log,
  );
  return view;
}

function show(view, known) {
  const { vessel, at: now } = known;
  if (!vessel) {
    say(view.state, "There is no vessel of this name.");
    return;
  }
  set(view.root, "state", vessel.link.state);
  say(view.state, vessel.link.since ? `${vessel.link.state} for ${between(vessel.link.since, now)}` : vessel.link.state);
  const said = reasons(vessel, now);
  if (view.said !== said.join("\n")) {
    view.said = said.join("\n");
    view.reasons.replaceChildren(...said.map((words) => text("li", "reason", words)));
  }
  showOrders(view, vessel);
  const { facts } = view;
  say(facts.waiting, `${files(vessel.backlog.files)}, ${bytes(vessel.backlog.bytes)}`);
  set(facts.waiting, "bytes", String(vessel.backlog.bytes));
  say(facts.left, vessel.eta_seconds == null ? "–" : duration(vessel.eta_seconds));
  facts.left.title = vessel.eta_unknown ?? "";
  say(facts.rate, vessel.rate ? `${bytes(vessel.rate)}/s` : "–");
  say(facts.oldest, vessel.oldest ? between(vessel.oldest.since, now) : "–");
  say(facts.parked, String(vessel.parked));
  say(facts.expired, String(vessel.expired));
  say(facts.window, windowOf(vessel, now));
  say(facts.last, vessel.last_acknowledged ? `${between(vessel.last_acknowledged, now)} ago` : "never");
  say(facts.received, `${files(vessel.acknowledged.files)}, ${bytes(vessel.acknowledged.bytes)}`);
  const onLink = (sum) => (sum ? `${bytes(sum.sent)} sent, ${bytes(sum.received)} received` : "–");
  say(facts.today, onLink(vessel.link_bytes_today));
  say(facts.month, onLink(vessel.link_bytes_month));
  say(facts.groups, (vessel.groups ?? []).join(", ") || "–");
  say(view.ways, (vessel.ways ?? []).map(wordsOfWay).join("; "));
  say(view.shore, vessel.shore ? `Served by the shore ${vessel.shore}` : "");
  showTransfers(view, vessel.transfers ?? []);
  showSpeed(view, vessel.speed);
  const lines = known.log ?? [];
  const key = `${lines.length} ${lines[0]?.at ?? ""}`;
  if (view.logged !== key) {
    view.logged = key;
    fill(view.log, lines.map((line) => element("li", line.level,
      text("time", "soft", new Date(line.at).toLocaleTimeString()), " ", text("span", "", line.text))), "None since the program started.");
  }
}

async function loadHistory(view, on) {
  const query = new URLSearchParams({ vessel: view.name, limit: "20" });
  if (on && view.before) query.set("before", view.before);
  let [found, parts, answer] = [[], 0, null];
  do {
    const response = await fetch(`/api/deliveries?${query}`);
    if (!response.ok) return;
    answer = await response.json();
    found.push(...answer.deliveries);
    parts += 1;
    if (answer.next) query.set("before", answer.next);
  } while (answer.next && found.length < 20 && parts < 10);
  const items = found.map((delivery) => element("li", "", element("div", "top",
    text("span", "file", `${delivery.directory}/${delivery.path}`), text("span", "soft", `${between(delivery.at, answer.at)} ago`)),
  text("p", "soft", `${bytes(delivery.bytes)}, ${delivery.verified}`)));
  view.before = answer.next;
  view.older.hidden = !answer.next;
  if (on) view.history.append(...items);
  else fill(view.history, items, "Nothing yet.");
}

// Opens a vessel's view in `place`, and returns a function that closes the view.
export function openVessel(name, place) {
  const view = make(name);
  place.replaceChildren(view.root);
  let known = {};
  const events = new EventSource(`/api/changes?vessel=${encodeURIComponent(name)}`);
  const update = (document_) => {
    known = document_;
    show(view, known);
  };
  events.addEventListener("whole", (event) => update(JSON.parse(event.data)));
  events.addEventListener("change", (event) => update(patched(known, JSON.parse(event.data))));
  onOrders(() => {
    view.offered = null;
    if (known.vessel) showOrders(view, known.vessel);
  }, view.root);
  const draw = async () => {
    if (document.hidden) return;
    const answer = await fetch(`/api/throughput?vessel=${encodeURIComponent(name)}`);
    if (answer.ok) view.chart.show((await answer.json())[name] ?? []);
  };
  const often = () => draw().catch(() => {});
  let acknowledged = null;
  const seldom = () => {
    view.queue.refresh();
    // Requests the history only if the number of acknowledged files has changed.
    if (known.vessel?.acknowledged.files === acknowledged) return;
    acknowledged = known.vessel?.acknowledged.files ?? null;
    if (!view.history.contains(document.activeElement)) loadHistory(view, false).catch(() => {});
  };
  often();
  loadHistory(view, false).catch(() => {});
  const timers = [setInterval(often, 3000), setInterval(seldom, 5000)];
  return () => {
    events.close();
    timers.forEach(clearInterval);
    place.replaceChildren();
  };
}
