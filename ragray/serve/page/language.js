// The language of the page and of texts: words, numbers, durations.
import { preferences } from "./kept.js";
import { TEXTS } from "./texts.js";

const TAGS = { en: "en", zh: "zh-Hans" };

/** Return the language of the page: the one that was chosen, else the browser's, else English. */
export function language() {
  const known = (tag) => Object.keys(TEXTS).find((name) => tag.toLowerCase().split("-")[0] === name);
  return preferences.language || navigator.languages.map(known).find(Boolean) || "en";
}

/** Return the other language, which the switch names. */
export function otherLanguage() {
  return Object.keys(TEXTS).find((name) => name !== language());
}

export const nameOf = (name) => TEXTS[name].name;
export const tagOf = (name) => TAGS[name];

/** Return a text of the page with its `{placeholders}` filled. */
export function t(name, values = {}) {
  return TEXTS[language()][name].replace(/\{(\w+)\}/g, (_, key) => values[key]);
}

/** Write a share in percent; what is not nothing is not written as 0%. */
export function share(value) {
  const percent = new Intl.NumberFormat(language(), { style: "percent" });
  return value > 0 && value < 0.005 ? `<${percent.format(0.01)}` : percent.format(value);
}

export const decimal = (value) => new Intl.NumberFormat(language(), { maximumFractionDigits: 3 }).format(value);

/** Write milliseconds with their unit. */
export function duration(ms) {
  return ms < 1000 ? t("ms", { n: ms.toFixed(0) }) : t("s", { n: (ms / 1000).toFixed(ms < 10000 ? 2 : 1) });
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
export function languageOf(text) {
  return SCRIPTS.find(([, letters]) => letters.test(text))?.[0] ?? "";
}
