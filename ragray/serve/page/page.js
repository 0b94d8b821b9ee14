// The page: asks, shows answers while they are written, keeps what was said. Untrusted text goes into text nodes alone.
import { answer, answeringModel, readiness, search, ServiceError } from "./service.js";
import { TEXTS } from "./texts.js";

const $ = (id) => document.getElementById(id);
const POLL_MS = 3000;
const KEPT_TURNS = 50;
const STORE = `ragray:${location.pathname}:`;
const PREFERENCES = { mode: "answer", k: null, earlier: false, language: "" };

// What the browser keeps: preferences and history for this path, the key for this tab. Storage may be full or switched off.

function kept(store, name, fallback) {
  try {
    return JSON.parse(store.getItem(STORE + name)) ?? fallback;
  } catch {
    return fallback;
  }
}

function keep(store, name, value) {
  try {
    store.setItem(STORE + name, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}

const preferences = { ...PREFERENCES, ...kept(localStorage, "preferences", {}) };
const service = { state: "unknown", model: null };
const turns = []; // {record, article, text}: what is kept, its element, the node that grows while it is written
let running = null; // the AbortController of the answer that is being written
let said = { name: "", values: {} }; // what the status line says

// Language.

function wanted() {
  const known = (tag) => Object.keys(TEXTS).find((name) => tag.toLowerCase().split("-")[0] === name);
  return preferences.language || navigator.languages.map(known).find(Boolean) || "en";
}

let language = wanted();

function t(name, values = {}) {
  return TEXTS[language][name].replace(/\{(\w+)\}/g, (_, key) => values[key]);
}

const share = (value) => new Intl.NumberFormat(language, { style: "percent" }).format(value);
const decimal = (value) => new Intl.NumberFormat(language, { maximumFractionDigits: 3 }).format(value);

function duration(ms) {
  const [value, unit, digits] = ms < 1000 ? [ms, "millisecond", 0] : [ms / 1000, "second", ms < 10000 ? 2 : 1];
  return new Intl.NumberFormat(language, { style: "unit", unit, maximumFractionDigits: digits }).format(value);
}

const SCRIPTS = [
  ["ja", /[\p{Script=Hiragana}\p{Script=Katakana}]/u],
  ["ko", /\p{Script=Hangul}/u],
  ["zh", /\p{Script=Han}/u],
  ["ar", /\p{Script=Arabic}/u],
  ["he", /\p{Script=Hebrew}/u],
  ["th", /\p{Script=Thai}/u],
  ["hi", /\p{Script=Devanagari}/u],
  ["ru", /\p{Script=Cyrillic}/u],
];

/** Guess a text's language by its script, for fonts and screen readers; "" means unknown. */
function languageOf(text) {
  return SCRIPTS.find(([, letters]) => letters.test(text))?.[0] ?? "";
}

function translate() {
  language = wanted();
  document.documentElement.lang = { en: "en", zh: "zh-Hans" }[language];
  document.title = t("title");
  for (const node of document.querySelectorAll("[data-text]")) node.textContent = t(node.dataset.text);
  for (const node of document.querySelectorAll("[data-label]")) node.setAttribute("aria-label", t(node.dataset.label));
  for (const node of document.querySelectorAll("[data-placeholder]")) node.placeholder = t(node.dataset.placeholder);
  const other = Object.keys(TEXTS).find((name) => name !== language);
  $("language").textContent = TEXTS[other].name;
  $("language").lang = other;
  turns.forEach(draw);
  showService();
  say(said.name, said.values);
}

// Elements.

function h(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

/** Make an element of untrusted text, with its direction and language. */
function prose(tag, attributes, text) {
  return h(tag, { ...attributes, dir: "auto", lang: languageOf(text) }, text);
}

function facts(list, pairs) {
  const rows = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  list.replaceChildren(...rows.flatMap(([name, value]) => [h("dt", {}, name), h("dd", { dir: "auto" }, value)]));
  return list;
}

function say(name, values = {}) {
  said = { name, values };
  $("status").textContent = name ? t(name, values) : "";
}

// The service.

async function check() {
  Object.assign(service, { snapshot: "", run: "", index: "", reason: "", last_error: "", loading: false }, await readiness());
  const serves = service.state === "ready" || service.state === "degraded";
  if (serves && service.model === null) {
    service.model = await answeringModel(key()).catch(() => null);
  }
  showService();
  if (!serves) setTimeout(check, POLL_MS);
}

function stateText() {
  const more = service.reason || service.last_error || (service.loading ? t("swapping") : "");
  return more ? `${t(`state_${service.state}`)}: ${more}` : t(`state_${service.state}`);
}

function showService() {
  if (service.state === "unknown") return;
  const searchOnly = service.model === "";
  $("service").dataset.state = service.state;
  $("service").textContent = service.state === "ready" ? t("state_ready") : stateText();
  facts($("service-facts"), [
    [t("state"), stateText()],
    [t("model"), searchOnly ? t("model_none") : service.model],
    [t("run"), service.model && (service.run || t("run_base"))],
    [t("snapshot"), service.snapshot],
    [t("index"), service.index],
  ]);
  document.querySelector("#empty p").textContent = t(searchOnly ? "welcome_search" : "welcome_more");
  for (const radio of document.querySelectorAll('input[name="mode"]')) {
    radio.disabled = searchOnly && radio.value !== "search";
    radio.checked = radio.value === mode();
  }
}

const key = () => kept(sessionStorage, "key", "");
const mode = () => (service.model === "" ? "search" : preferences.mode);

// Asking.

async function ask(question) {
  running = new AbortController();
  const record = { question, mode: mode(), answer: "", citations: [], finish: "", error: null };
  const turn = { record, article: h("article", { class: "turn" }), text: null };
  const earlier = preferences.earlier ? conversation() : [];
  turns.push(turn);
  $("turns").append(turn.article);
  draw(turn);
  showComposer();
  say("searching");
  turn.article.scrollIntoView({ block: "start" });
  try {
    await (record.mode === "search" ? find(turn) : write(turn, earlier));
    say(...outcome(record));
  } catch (err) {
    fail(record, err);
  }
  running = null;
  showComposer();
  draw(turn);
  follow();
  save();
}

async function find({ record }) {
  const begun = performance.now();
  Object.assign(record, await search(record.question, { k: preferences.k, key: key(), signal: running.signal }));
  record.times = { total: performance.now() - begun };
  record.finish = "stop";
}

async function write(turn, earlier) {
  const { record } = turn;
  const begun = performance.now();
  const elapsed = () => performance.now() - begun;
  const times = { search: null, first: null, total: 0 };
  record.times = times;
  service.model ||= await answeringModel(key(), running.signal);
  const closed = record.mode === "closed";
  const retrieval = { ...(closed ? { closed_book: true } : {}), ...(preferences.k && !closed ? { k: preferences.k } : {}) };
  const options = { model: service.model, retrieval, key: key(), signal: running.signal };
  for await (const { type, ...event } of answer([...earlier, { role: "user", content: record.question }], options)) {
    if (type === "text") {
      if (times.first === null) say("writing");
      times.first ??= elapsed();
      record.answer += event.text;
      turn.text.appendData(event.text);
      follow();
    } else if (type === "open") {
      ({ searchMs: times.search } = event);
      Object.assign(record, { snapshot: event.snapshot, run: event.run, request: event.request });
    } else {
      Object.assign(record, event);
    }
    times.total = elapsed();
  }
}

function conversation() {
  const answered = turns.map((turn) => turn.record).filter((record) => record.answer && !record.error);
  return answered.flatMap(({ question, answer: text }) => [
    { role: "user", content: question },
    { role: "assistant", content: text },
  ]);
}

function outcome({ citations }) {
  return citations.length < 2 ? [`done_${citations.length}`] : ["done_n", { n: citations.length }];
}

function fail(record, err) {
  if (err.name === "AbortError") {
    record.finish = "stopped";
    say("stopped");
    return;
  }
  if (!(err instanceof ServiceError)) console.error(err);
  const { kind = "page", message, status = 0, request = "", waitS = 0 } = err;
  record.error = { kind, message, status, request, until: waitS ? Date.now() + 1000 * waitS : 0 };
  service.model = null; // what is served may have changed
  say("failed", { message: explain(record.error) });
  check();
}

function explain({ kind, message, status }) {
  const known = { 401: "unauthorized", 429: "overloaded" }[status] ?? { unreachable: "unreachable", cut_off: "cut_off" }[kind];
  return [known ? t(known) : "", message || (known ? "" : t("status_code", { n: status }))].filter(Boolean).join(" ");
}

function again(turn) {
  turns.splice(turns.indexOf(turn), 1);
  turn.article.remove();
  $("question").focus();
  ask(turn.record.question);
}

// One turn as elements.

function draw(turn) {
  const { record, article } = turn;
  const live = running !== null && turn === turns.at(-1);
  turn.text = document.createTextNode(record.answer);
  const tag = { closed: t("closed_tag"), search: t("search_tag") }[record.mode];
  article.replaceChildren(
    h("header", {}, prose("h2", {}, record.question), tag ? h("span", { class: "tag" }, tag) : ""),
    record.mode === "search" ? "" : answerElement(turn, live),
    ...(live ? [] : [note(record), errorElement(turn), sources(record), details(record)]),
  );
  article.classList.toggle("live", live);
}

function answerElement({ record, text }, live) {
  const node = prose("div", { class: "answer reading" }, "");
  node.lang = languageOf(record.answer || record.question);
  node.append(...(live ? [text, h("span", { class: "caret", "aria-hidden": "true" })] : marked(record)));
  return node;
}

/** Return an answer's text with its `[n]` as buttons that open what they cite. */
function marked({ answer: text, citations }) {
  return text.split(/(\[\d+\])/).map((part) => {
    const row = citations.findIndex(({ number }) => part === `[${number}]`);
    if (row < 0) return part;
    const number = citations[row].number;
    return h("button", { type: "button", class: "marker", "aria-label": t("marker_label", { n: number }), onclick: () => open(citations, row) }, `${number}`);
  });
}

function note({ finish, mode: kind, answer: text, citations, error }) {
  const silent = kind === "search" ? finish && !citations.length && "found_nothing" : finish === "stop" && !text.trim() && "empty_answer";
  const name = { length: "length_note", stopped: "stopped_note" }[finish] ?? silent;
  return name && !error ? h("p", { class: "small" }, t(name)) : "";
}

function sources({ citations, mode: kind }) {
  if (!citations.length) return "";
  const rows = citations.map((citation, row) => h("li", {}, sourceButton(citation, kind, () => open(citations, row))));
  return h("section", { class: "sources" }, h("h3", {}, t("sources")), h("ol", {}, ...rows));
}

function sourceButton(citation, kind, onclick) {
  const title = citation.title || citation.id;
  const figure = kind === "search" ? decimal(citation.score) : share(citation.weight);
  const label = kind === "search" ? t("hit_label", { n: citation.number, title, score: figure }) : t("source_label", { n: citation.number, title, share: figure });
  const bar = h("span", { class: "bar-fill" });
  bar.style.setProperty("--share", kind === "search" ? 0 : citation.weight);
  return h(
    "button",
    { type: "button", class: "source", "aria-label": label, onclick },
    h("span", { class: "number" }, `${citation.number}`),
    prose("span", { class: "source-title" }, title),
    h("span", { class: "figure" }, figure),
    prose("span", { class: "excerpt" }, citation.text.slice(0, 300)),
    kind === "search" ? "" : h("span", { class: "share" }, bar),
  );
}

function details(record) {
  const { times, usage } = record;
  if (!times || record.error) return "";
  const writing = times.first === null || times.first === undefined ? null : times.total - times.first;
  const list = facts(h("dl", { class: "facts" }), [
    ...["search", "first"].map((name) => [t(`stage_${name}`), stage(times[name], times.total)]),
    [t("stage_writing"), stage(writing, times.total)],
    [t("stage_total"), stage(times.total, times.total)],
    [t("tokens"), usage && t("tokens_both", { read: usage.prompt_tokens, written: usage.completion_tokens })],
    [t("snapshot"), record.snapshot],
    [t("run"), record.run],
    [t("request"), record.request],
  ]);
  const summary = [duration(times.total), record.snapshot && `${t("snapshot")} ${record.snapshot}`].filter(Boolean).join(" · ");
  return h("details", { class: "details" }, h("summary", {}, summary), list);
}

function stage(ms, total) {
  if (ms === null || ms === undefined) return null;
  const bar = h("span", { class: "bar-fill" });
  bar.style.setProperty("--share", total ? Math.min(1, ms / total) : 0);
  return h("span", { class: "stage" }, h("span", { class: "stage-bar" }, bar), duration(ms));
}

function errorElement(turn) {
  const { error } = turn.record;
  if (!error) return "";
  const button = h("button", { type: "button", onclick: () => again(turn) }, t("again"));
  if (error.until > Date.now()) countDown(button, error.until);
  return h(
    "div",
    { class: "error" },
    prose("p", {}, explain(error)),
    error.request ? h("p", { class: "small" }, `${t("request")} `, h("code", {}, error.request)) : "",
    h("p", { class: "row" }, button, error.status === 401 ? h("button", { type: "button", onclick: () => openSettings("key") }, t("enter_key")) : ""),
  );
}

/** Show on a button how long it is still to be waited for; the button works afterwards. */
function countDown(button, until) {
  const left = Math.ceil((until - Date.now()) / 1000);
  const seen = button.isConnected || button.disabled === false; // its turn may have been drawn anew meanwhile
  button.disabled = left > 0;
  button.textContent = left > 0 ? t("again_in", { n: left }) : t("again");
  if (left > 0 && seen) setTimeout(() => button.isConnected && countDown(button, until), 500);
  else if (said.name === "failed") say("again_now");
}

// The passage.

let shown = { citations: [], row: 0 };

function open(citations, row) {
  shown = { citations, row };
  showPassage();
  $("passage").showModal();
}

function showPassage() {
  const { citations, row } = shown;
  const { number, id, title, text, url, score, weight } = citations[row];
  $("passage-number").textContent = t("passage_of", { n: number, all: citations.length });
  $("passage-title").textContent = title || id;
  $("passage-title").lang = languageOf(title);
  $("passage-text").textContent = text;
  $("passage-text").lang = languageOf(text);
  $("passage-text").scrollTop = 0;
  facts($("passage-facts"), [
    [t("share"), weight === undefined ? null : share(weight)],
    [t("score"), decimal(score)],
    [t("url"), address(url)],
    [t("id"), id],
  ]);
  $("passage-before").disabled = row === 0;
  $("passage-next").disabled = row === citations.length - 1;
}

function turnTo(step) {
  const row = shown.row + step;
  if (row < 0 || row >= shown.citations.length) return;
  shown.row = row;
  showPassage();
}

/** Return a link where an address is one of the web; other addresses (files, names) are text, and names that ragray made are left out. */
function address(url) {
  if (!url || url.startsWith("urn:ragray:")) return null;
  if (!/^https?:\/\//i.test(url) || !URL.canParse(url)) return url;
  return h("a", { href: url, target: "_blank", rel: "noopener noreferrer" }, url);
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
  showService();
  $("settings").showModal();
  if (focus) $(focus).focus();
}

function closeSettings() {
  const form = new FormData($("settings-form"));
  const k = Number.parseInt(form.get("k"), 10);
  Object.assign(preferences, { mode: form.get("mode") ?? preferences.mode, k: k >= 1 && k <= 50 ? k : null, earlier: form.has("earlier") });
  keep(localStorage, "preferences", preferences);
  if (form.get("key").trim() !== key()) {
    keep(sessionStorage, "key", form.get("key").trim());
    service.model = null;
    check();
  }
}

function save() {
  const records = turns.map((turn) => turn.record).slice(-KEPT_TURNS);
  if (!keep(localStorage, "history", records)) say("not_kept");
}

function restore() {
  for (const record of kept(localStorage, "history", [])) {
    const turn = { record, article: h("article", { class: "turn" }), text: null };
    turns.push(turn);
    $("turns").append(turn.article);
  }
}

function clear() {
  if (!window.confirm(t("clear_sure"))) return;
  running?.abort();
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
$("passage-before").addEventListener("click", () => turnTo(-1));
$("passage-next").addEventListener("click", () => turnTo(1));
$("settings-open").addEventListener("click", () => openSettings(""));
$("settings").addEventListener("close", closeSettings);
$("clear").addEventListener("click", clear);
$("language").addEventListener("click", () => {
  preferences.language = Object.keys(TEXTS).find((name) => name !== language);
  keep(localStorage, "preferences", preferences);
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
