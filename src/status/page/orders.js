// Gives orders: keeps the token, asks for confirmation, sends the order and shows its result.

import { at, element, say, text } from "/words.js";

let token = sessionStorage.getItem("token") ?? "";
let granted = false;
let listeners = [];

export const mayOrder = () => granted;

// Calls `act` after each check of the access and after each order that the server accepted, as long as `root` is on the
// page.
export function onOrders(act, root) {
  listeners.push({ act, root });
}

function callListeners() {
  listeners = listeners.filter(({ root }) => !root || root.isConnected);
  listeners.forEach(({ act }) => act());
}

const headers = () => (token ? { Authorization: `Bearer ${token}` } : {});

export async function askAccess() {
  const answer = await fetch("/api/access", { headers: headers() });
  if (!answer.ok) return;
  const access = await answer.json();
  granted = access.granted;
  at("unlock").hidden = !access.orders || access.granted;
  if (access.orders && !access.granted && token) say(at("unlocked"), "The token is wrong.");
  callListeners();
}

at("unlock").addEventListener("submit", async (event) => {
  event.preventDefault();
  token = at("token").value;
  sessionStorage.setItem("token", token);
  await askAccess();
});

let clearing = 0;

// Shows the result of an order for 8 s, or for 30 s if it failed.
export function tell(words, failed) {
  const told = at("told");
  told.hidden = false;
  told.classList.toggle("failed", failed);
  say(told, words);
  clearTimeout(clearing);
  clearing = setTimeout(() => { told.hidden = true; }, failed ? 30000 : 8000);
}

async function give(order, done) {
  try {
    const answer = await fetch("/api/orders", {
      method: "POST", headers: { ...headers(), "Content-Type": "application/json" }, body: JSON.stringify(order),
    });
    if (!answer.ok) return tell(`Refused: ${(await answer.text()).trim()}`, true);
    const { done: acted } = await answer.json();
    tell(acted ? done : "There was nothing to do.", !acted);
    callListeners();
  } catch {
    tell("contentmonster does not answer; the order may not have been carried out.", true);
  }
}

function field(label, input) {
  const id = `field-${label.toLowerCase().replaceAll(" ", "-")}`;
  input.id = id;
  const name = text("label", "", label);
  name.htmlFor = id;
  return element("p", "field", name, input);
}

// Asks for confirmation before an order is given. With `pausing`, also asks for the end of the pause and a note.
export function ask({ title, words, verb, order, done, pausing }) {
  const dialog = at("ask");
  say(at("ask-title"), title);
  say(at("ask-text"), words);
  say(at("ask-yes"), verb);
  const [until, note] = [document.createElement("input"), document.createElement("input")];
  until.type = "datetime-local";
  note.maxLength = 200;
  at("ask-more").replaceChildren(...(pausing ? [field("Resume at", until), field("Note", note)] : []));
  dialog.returnValue = "no";
  dialog.onclose = () => {
    if (dialog.returnValue !== "yes") return;
    const more = {};
    if (pausing && until.value) more.until = new Date(until.value).getTime();
    if (pausing && note.value) more.note = note.value;
    give({ ...order, ...more }, done);
  };
  dialog.showModal();
  at("ask-yes").focus();
}

export const pause = (vessel) => ask({
  title: `Pause ${vessel}?`, verb: "Pause", pausing: true, order: { order: "pause", vessel }, done: `${vessel} is paused.`,
  words: "Its files wait until it is resumed, also after a restart. Without a time, it stays paused until a person resumes it.",
});

export const resume = (vessel) => ask({
  title: `Resume ${vessel}?`, verb: "Resume", order: { order: "resume", vessel }, done: `${vessel} is resumed.`,
  words: "Its files are sent again.",
});

export const retry = (vessel) => ask({
  title: `Retry ${vessel} now?`, verb: "Retry now", order: { order: "retry", vessel }, done: `${vessel} is retried now.`,
  words: "Connects to the vessel if it is away, and retries its parked and postponed files at once.",
});

export const retryFile = (entry) => ask({
  title: "Retry this file now?", verb: "Retry now", words: `${entry.directory}/${entry.path}, for ${entry.vessel}`,
  order: { order: "retry", vessel: entry.vessel, deliveries: [entry.delivery] }, done: "The file is retried now.",
});

export const forgetFile = (entry) => ask({
  title: "Forget this file?", verb: "Forget", order: { order: "forget", version: entry.version },
  words: `${entry.directory}/${entry.path} stays on the shore, and is sent to no vessel until it changes.`,
  done: "The file is forgotten.",
});

export const pauseDirectory = (directory) => ask({
  title: `Pause the directory ${directory}?`, verb: "Pause", pausing: true, done: `${directory} is paused.`,
  order: { order: "pause-directory", directory },
  words: "New files are recorded, but sent to no vessel until the directory is resumed.",
});

export const resumeDirectory = (directory) => ask({
  title: `Resume the directory ${directory}?`, verb: "Resume", done: `${directory} is resumed.`,
  order: { order: "resume-directory", directory }, words: "Its files are sent again.",
});
