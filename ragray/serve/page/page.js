// The page: asks, shows answers while they are written, keeps what was said.
import { $, facts } from "./elements.js";
import { keep, keepPreferences, kept, preferences } from "./kept.js";
import { language, nameOf, otherLanguage, t, tagOf } from "./language.js";
import { answer, answeringModel, readiness, search, ServiceError } from "./service.js";
import { draw, explain, makeTurn } from "./turn.js";

const POLL_MS = 3000;
const KEPT_TURNS = 50;
const HISTORY = "history-1"; // the number changes with the shape of a record

const service = { state: "unknown", model: null, timer: 0 }; // model: null is not known, "" none
const turns = [];
let running = null; // the AbortController of the answer that is being written
let said = ["", {}]; // what the status line says

const key = () => kept(sessionStorage, "key", "");
const mode = () => (service.model === "" ? "search" : preferences.mode);

// Language and status.

function translate() {
  document.documentElement.lang = tagOf(language());
  document.title = t("title");
  for (const node of document.querySelectorAll("[data-text]")) node.textContent = t(node.dataset.text);
  for (const node of document.querySelectorAll("[data-label]")) node.setAttribute("aria-label", t(node.dataset.label));
  for (const node of document.querySelectorAll("[data-placeholder]")) node.placeholder = t(node.dataset.placeholder);
  $("language").textContent = nameOf(otherLanguage());
  $("language").lang = tagOf(otherLanguage());
  turns.forEach(draw);
  showService();
  say(...said);
}

function say(name, values = {}) {
  said = [name, values];
  $("status").textContent = name && t(name, values);
}

// The service.

const NOTHING_KNOWN = { snapshot: "", run: "", index: "", reason: "", last_error: "", loading: false };

/** Ask what is served; where nothing is, again a little later. */
async function check() {
  clearTimeout(service.timer);
  Object.assign(service, NOTHING_KNOWN, await readiness());
  if (serves()) service.model ??= await answeringModel(key()).catch(() => null);
  else service.timer = setTimeout(check, POLL_MS);
  showService();
}

const serves = () => service.state === "ready" || service.state === "degraded";

function stateText() {
  const more = service.reason || service.last_error || (service.loading && t("swapping"));
  return more ? `${t(`state_${service.state}`)}: ${more}` : t(`state_${service.state}`);
}

function showService() {
  if (service.state === "unknown") return;
  const searchOnly = service.model === "";
  $("service").dataset.state = service.state;
  $("service-text").textContent = stateText();
  const welcome = searchOnly ? "welcome_search" : "welcome_more";
  $("welcome-more").textContent = serves() ? t(welcome) : stateText();
  facts($("service-facts"), [
    [t("state"), stateText()],
    [t("model"), searchOnly ? t("model_none") : service.model],
    [t("run"), service.model && !service.run && t("run_base")],
    [t("snapshot"), service.snapshot],
    [t("index"), service.index],
  ]);
}

// Asking.

async function ask(question) {
  const earlier = preferences.earlier ? conversation() : [];
  const turn = add({ question, mode: mode(), answer: "", citations: [], finish: "", error: null }, true);
  running = new AbortController();
  showComposer();
  say("searching");
  draw(turn);
  turn.article.scrollIntoView({ block: "start" });
  try {
    await (turn.record.mode === "search" ? find(turn.record) : write(turn, earlier));
    say(...outcome(turn.record));
  } catch (err) {
    fail(turn.record, err);
  } finally {
    running = null;
    turn.live = false;
    showComposer();
    draw(turn);
    follow();
    save();
  }
}

function add(record, live = false) {
  const turn = makeTurn(record, { again: () => again(turn), enterKey: () => openSettings("key") }, live);
  turns.push(turn);
  $("turns").append(turn.article);
  return turn;
}

/** Look passages up for a record. */
async function find(record) {
  const begun = performance.now();
  Object.assign(record, await search(record.question, { k: preferences.k, key: key(), signal: running.signal }));
  record.times = { total: performance.now() - begun };
  record.finish = "stop";
}

/** Have an answer written into a turn. */
async function write({ record, text }, earlier) {
  const begun = performance.now();
  const times = { search: null, first: null, total: null };
  record.times = times;
  const { signal } = running;
  service.model ||= await answeringModel(key(), signal);
  const retrieval = record.mode === "closed" ? { closed_book: true } : preferences.k ? { k: preferences.k } : {};
  const messages = [...earlier, { role: "user", content: record.question }];
  for await (const { type, ...event } of answer(messages, { model: service.model, retrieval, key: key(), signal })) {
    times.total = performance.now() - begun;
    if (type === "text") {
      if (times.first === null) say("writing");
      times.first ??= times.total;
      record.answer += event.text;
      text.appendData(event.text);
      follow();
    } else {
      const { searchMs = times.search, ...fields } = event;
      times.search = searchMs;
      Object.assign(record, fields);
    }
  }
}

function conversation() {
  const answered = turns.map((turn) => turn.record).filter((record) => record.answer && !record.error);
  return answered.flatMap(({ question, answer: text }) => [
    { role: "user", content: question },
    { role: "assistant", content: text },
  ]);
}

function outcome({ citations: { length: n } }) {
  return n < 2 ? [`done_${n}`] : ["done_n", { n }];
}

function fail(record, err) {
  if (err.name === "AbortError") {
    record.finish = "stopped";
    say("stopped");
    return;
  }
  if (!(err instanceof ServiceError)) console.error(err);
  const { kind, message, status, request, waitS } = err instanceof ServiceError ? err : new ServiceError("page", String(err));
  record.error = { kind, message, status, request, until: Date.now() + 1000 * waitS };
  service.model = null; // another one may be served now
  say("failed", { message: [explain(record.error), waitS && t("again_in", { n: waitS })].filter(Boolean).join(" · ") });
  check();
}

function again(turn) {
  if (running) return;
  turns.splice(turns.indexOf(turn), 1);
  turn.article.remove();
  $("question").focus();
  ask(turn.record.question);
}

// The form.

function showComposer() {
  const focused = document.activeElement;
  $("send").hidden = running !== null;
  $("stop").hidden = running === null;
  $("empty").hidden = turns.length > 0;
  if (focused === $("send") || focused === $("stop")) $("question").focus();
}

/** Keep the end of the page in sight while an answer grows, unless its reader scrolled away. */
function follow() {
  const page = document.documentElement;
  if (page.scrollHeight - page.scrollTop - page.clientHeight < 120) page.scrollTop = page.scrollHeight;
}

function submit(event) {
  event.preventDefault();
  const question = $("question").value.trim();
  if (!question || running) return;
  $("question").value = "";
  ask(question);
}

function onKey(event) {
  if (event.key === "Escape" && running && !document.querySelector("dialog[open]") && !event.isComposing) running.abort();
}

/** Enter asks, but not where it only ends the choice of a character (`keyCode` 229: Safari). */
function onQuestionKey(event) {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing && event.keyCode !== 229) submit(event);
}

// Settings and history.

function openSettings(focus) {
  $("k").value = preferences.k ?? "";
  $("earlier").checked = preferences.earlier;
  $("key").value = key();
  for (const radio of $("settings-form").elements.mode) {
    radio.checked = radio.value === mode();
    radio.disabled = service.model === "" && radio.value !== "search";
  }
  $("settings").showModal();
  if (focus) $(focus).focus();
}

/** Take over what the dialog holds, however it was closed. */
function closeSettings() {
  const form = new FormData($("settings-form"));
  const k = Number.parseInt(form.get("k"), 10);
  if (service.model !== "") preferences.mode = form.get("mode");
  Object.assign(preferences, { k: k >= 1 && k <= 50 ? k : null, earlier: form.has("earlier") });
  keepPreferences();
  if (form.get("key").trim() !== key()) {
    keep(sessionStorage, "key", form.get("key").trim());
    service.model = null;
    check();
  }
}

function save() {
  const records = turns.map((turn) => turn.record).slice(-KEPT_TURNS);
  if (!keep(localStorage, HISTORY, records)) say("not_kept");
}

function restore() {
  kept(localStorage, HISTORY, []).forEach((record) => add(record));
}

function clear() {
  if (running || !window.confirm(t("clear_sure"))) return;
  turns.length = 0;
  $("turns").replaceChildren();
  save();
  say("cleared");
  showComposer();
  $("settings").close();
}

$("ask").addEventListener("submit", submit);
$("question").addEventListener("keydown", onQuestionKey);
$("stop").addEventListener("click", () => running?.abort());
document.addEventListener("keydown", onKey);
$("settings-open").addEventListener("click", () => openSettings(""));
$("settings").addEventListener("close", closeSettings);
$("clear").addEventListener("click", clear);
$("language").addEventListener("click", () => {
  preferences.language = otherLanguage();
  keepPreferences();
  translate();
});
for (const dialog of document.querySelectorAll("dialog")) {
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
}

restore();
translate();
showComposer();
document.documentElement.scrollTop = document.documentElement.scrollHeight;
$("question").focus();
check();
