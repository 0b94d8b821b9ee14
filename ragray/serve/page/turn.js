// One question with what came back, as elements. A record is plain data: what the browser keeps.
import { facts, h, prose } from "./elements.js";
import { decimal, duration, languageOf, share, t } from "./language.js";
import { open } from "./passage.js";

/** Return a turn of a record: its element, and the text node that grows while it is `live`. `actions`: again, enterKey. */
export function makeTurn(record, actions, live = false) {
  return { record, actions, live, article: h("article", { class: "turn" }), text: null };
}

/** Draw a turn anew from its record. */
export function draw(turn) {
  const { record, article, live } = turn;
  turn.text = document.createTextNode(record.answer);
  const tag = { closed: t("closed_tag"), search: t("search_tag") }[record.mode];
  const parts = [
    h("header", {}, prose("h2", {}, record.question), tag && h("span", { class: "tag" }, tag)),
    record.mode !== "search" && answerElement(turn),
    ...(live ? [] : [note(record), errorElement(turn), sources(record), details(record)]),
  ];
  article.replaceChildren(...parts.filter(Boolean));
}

function answerElement({ record, text, live }) {
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
  return name && !error && h("p", { class: "small" }, t(name));
}

function sources({ citations, mode: kind }) {
  if (!citations.length) return null;
  const rows = citations.map((citation, row) => h("li", {}, sourceButton(citation, kind, () => open(citations, row))));
  return h("section", { class: "sources" }, h("h3", {}, t("sources")), h("ol", {}, ...rows));
}

function sourceButton(citation, kind, onclick) {
  const title = citation.title || citation.id;
  const figure = kind === "search" ? decimal(citation.score) : share(citation.weight);
  const label = kind === "search" ? t("hit_label", { n: citation.number, title, score: figure }) : t("source_label", { n: citation.number, title, share: figure });
  const bar = h("span", { class: "bar-fill" });
  bar.style.setProperty("--share", citation.weight);
  return h(
    "button",
    { type: "button", class: "source", "aria-label": label, onclick },
    h("span", { class: "number" }, `${citation.number}`),
    prose("span", { class: "source-title" }, title),
    h("span", { class: "figure" }, figure),
    prose("span", { class: "excerpt" }, citation.text.slice(0, 300)),
    kind !== "search" && h("span", { class: "share" }, bar),
  );
}

function details(record) {
  const { times, usage } = record;
  if (!times?.total || record.error) return null;
  const list = facts(h("dl", { class: "facts" }), [
    [t("stage_search"), stage(0, times.search, times.total)],
    [t("stage_first"), stage(0, times.first, times.total)],
    [t("stage_writing"), stage(times.first, times.first && times.total, times.total)],
    [t("tokens"), usage && t("tokens_both", { read: usage.prompt_tokens, written: usage.completion_tokens })],
    [t("snapshot"), record.snapshot],
    [t("run"), record.run],
    [t("request"), record.request],
  ]);
  const summary = [duration(times.total), record.snapshot && `${t("snapshot")} ${record.snapshot}`].filter(Boolean).join(" · ");
  return h("details", { class: "details" }, h("summary", {}, summary), list);
}

/** Show a part of the time as a bar with its length; null where it was not measured. */
function stage(from, to, total) {
  if (!to) return null;
  const bar = h("span", { class: "bar-fill" });
  bar.style.setProperty("--from", from / total);
  bar.style.setProperty("--share", (to - from) / total);
  return h("span", { class: "stage" }, h("span", { class: "stage-bar" }, bar), duration(to - from));
}

function errorElement({ record: { error }, actions }) {
  if (!error) return null;
  const button = h("button", { type: "button", onclick: actions.again }, t("again"));
  countDown(button, error.until);
  return h(
    "div",
    { class: "error" },
    prose("p", {}, explain(error)),
    error.request && h("p", { class: "small" }, `${t("request")} `, h("code", {}, error.request)),
    h("p", { class: "row" }, button, error.status === 401 && h("button", { type: "button", class: "plain", onclick: actions.enterKey }, t("enter_key"))),
  );
}

/** Return what went wrong in words: the page's own, then the service's. */
export function explain({ kind, message, status }) {
  const known = { 401: "unauthorized", 429: "overloaded" }[status] ?? { unreachable: "unreachable", cut_off: "cut_off" }[kind];
  return [known && t(known), message || (!known && t("status_code", { n: status }))].filter(Boolean).join(" ");
}

/** Show on a button how long it is still to be waited for, until it may be pressed. */
function countDown(button, until) {
  const left = Math.ceil((until - Date.now()) / 1000);
  button.disabled = left > 0;
  button.textContent = left > 0 ? t("again_in", { n: left }) : t("again");
  if (left > 0) setTimeout(countDown, 250, button, until);
}
