// The dialog that shows one passage of an answer.
import { $, facts, h } from "./elements.js";
import { decimal, languageOf, share, t } from "./language.js";

let shown = { citations: [], row: 0 };

/** Open the passage of a row of citations. */
export function open(citations, row) {
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

$("passage-before").addEventListener("click", () => turnTo(-1));
$("passage-next").addEventListener("click", () => turnTo(1));
