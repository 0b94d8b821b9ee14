// Elements. Untrusted text goes into text nodes alone, never into markup.
import { languageOf } from "./language.js";

export const $ = (id) => document.getElementById(id);

/** Make an element; attributes that begin with `on` are listeners, children that are empty are left out. */
export function h(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter(Boolean));
  return node;
}

/** Make an element of untrusted text, with its direction and language. */
export function prose(tag, attributes, text) {
  return h(tag, { ...attributes, dir: "auto", lang: languageOf(text) }, text);
}

/** Fill a list of terms and values; those without a value are left out. */
export function facts(list, pairs) {
  const rows = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  list.replaceChildren(...rows.flatMap(([name, value]) => [h("dt", {}, name), h("dd", { dir: "auto" }, value)]));
  return list;
}
