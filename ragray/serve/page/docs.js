// The documentation. In: `openapi.json` of this service. Out: its routes with fields, an example for curl, and statuses.
import { $, h } from "./elements.js";
import { kept } from "./kept.js";

const METHODS = ["get", "post", "put", "patch", "delete"];
const PARTS = { ask: "Questions", openai: "As OpenAI’s interface", lookup: "For other programs", operate: "Operating" };
const DEEPEST = 4;
const UNSUPPORTED = "not supported";

/** Write text with its `code`; paragraphs are parted by empty lines, lines that begin with `* ` are a list. */
function markdown(text) {
  return text.trim().split(/\n\s*\n/).map((block) => {
    const lines = block.split(/\n(?=\* )/);
    if (!lines[0].startsWith("* ")) return h("p", {}, ...inline(block));
    return h("ul", {}, ...lines.map((line) => h("li", {}, ...inline(line.slice(2)))));
  });
}

function inline(text) {
  return text.split(/(`[^`]+`)/).map((part) => (part.startsWith("`") ? h("code", {}, part.slice(1, -1)) : part));
}

/** Reads the document's schemas. */
class Schemas {
  constructor(document) {
    this.named = document.components?.schemas ?? {};
  }

  /** Return a schema without references and without the choice of null. */
  plain(schema) {
    const { $ref: reference, anyOf: choices, ...rest } = schema;
    if (reference) return { ...this.plain(this.named[reference.split("/").at(-1)] ?? {}), ...rest };
    const kinds = (choices ?? []).filter(({ type }) => type !== "null");
    return kinds.length === 1 ? { ...this.plain(kinds[0]), ...rest } : { ...schema, anyOf: choices && kinds };
  }

  /** Return the type of a schema in words. */
  type(schema) {
    const { type, items, enum: values, const: only, anyOf: choices, minimum, maximum, maxLength, maxItems } = this.plain(schema);
    if (only !== undefined || values) return (values ?? [only]).map((value) => JSON.stringify(value)).join(" or ");
    if (choices) return choices.map((choice) => this.type(choice)).join(" or ");
    const bounds = [minimum === undefined ? "" : `at least ${minimum}`, maximum === undefined ? "" : `at most ${maximum}`];
    bounds.push(maxLength ? `at most ${maxLength} characters` : "", maxItems ? `at most ${maxItems}` : "");
    const kind = type === "array" ? `list of ${items ? this.type(items) : "anything"}` : (type ?? "anything");
    return [kind, ...bounds.filter(Boolean)].join(", ");
  }

  /** Return the fields of an object, or of the objects in a list; none for other types. */
  fields(schema) {
    const { type, items, properties = {}, required = [] } = this.plain(schema);
    if (type === "array" && items) return this.fields(items);
    return Object.entries(properties).map(([name, field]) => ({ name, field, required: required.includes(name) }));
  }

  /** Return an example of a schema; of an object all fields, or only those that are `needed`. */
  example(schema, needed, depth = 0) {
    const { examples, default: fallback, type, items, enum: values, const: only, anyOf: choices } = this.plain(schema);
    if (examples?.length) return examples[0];
    if (only !== undefined || values) return only ?? values[0];
    if (depth > DEEPEST) return null;
    if (type === "array") return items ? [this.example(items, needed, depth + 1)] : [];
    const fields = this.fields(schema).filter(({ required, field }) => required || (needed ? this.plain(field).examples : true));
    if (fields.length) return Object.fromEntries(fields.map(({ name, field }) => [name, this.example(field, needed, depth + 1)]));
    if (choices?.length) return this.example(choices[0], needed, depth + 1);
    return fallback ?? { integer: 0, number: 0, boolean: false, string: "", object: {} }[type] ?? null;
  }
}

function fieldList(schemas, schema, depth = 0) {
  const fields = schemas.fields(schema);
  const refused = fields.filter(({ field }) => field.description === UNSUPPORTED).map(({ name }) => name);
  const rows = fields.filter(({ name }) => !refused.includes(name)).map((each) => fieldRow(schemas, each, depth));
  if (!rows.length) return null;
  const last = refused.length ? h("p", { class: "small" }, "Refused by name: ", ...inline(refused.map((name) => `\`${name}\``).join(", "))) : null;
  return h("div", {}, h("dl", { class: "fields" }, ...rows), last);
}

function fieldRow(schemas, { name, field, required }, depth) {
  const { default: fallback } = field;
  const told = [schemas.type(field), required ? "required" : "", fallback === undefined || typeof fallback === "object" ? "" : `default ${JSON.stringify(fallback)}`];
  const below = depth < DEEPEST ? fieldList(schemas, field, depth + 1) : null;
  return h(
    "div",
    {},
    h("dt", {}, h("code", {}, name)),
    h("dd", {}, ...inline(field.description ?? ""), h("div", { class: "small" }, told.filter(Boolean).join("; "))),
    below && h("dd", { class: "below" }, below),
  );
}

/** Return the command that sends an example. */
function curl(schemas, method, path, body) {
  const parts = [`curl ${new URL(path.slice(1), document.baseURI)}`];
  if (kept(sessionStorage, "key", "")) parts.push('-H "Authorization: Bearer $RAGRAY_KEY"');
  if (body) parts.push("-H 'Content-Type: application/json'", `-d '${JSON.stringify(schemas.example(body, true), null, 2).replaceAll("'", "'\\''")}'`);
  return parts.join(" \\\n  ");
}

function statuses(responses) {
  const rows = Object.entries(responses).map(([status, { description }]) => h("div", {}, h("dt", {}, status), h("dd", {}, ...inline(description))));
  return h("details", {}, h("summary", {}, "Statuses"), h("dl", { class: "fields" }, ...rows));
}

function answerParts(schemas, content = {}) {
  return Object.entries(content).flatMap(([kind, { schema, example }]) => [
    h("h3", {}, `Answer, ${kind}`),
    h("pre", { tabindex: "0" }, h("code", {}, example?.trim() ?? JSON.stringify(schemas.example(schema, false), null, 2))),
    schema && fieldList(schemas, schema) && h("details", {}, h("summary", {}, "Fields of the answer"), fieldList(schemas, schema)),
  ]);
}

function section(schemas, { method, path, operation }) {
  const body = operation.requestBody?.content?.["application/json"]?.schema;
  return h(
    "section",
    { id: operation.operationId },
    h("h2", {}, operation.summary ?? path),
    h("p", { class: "route" }, h("code", {}, h("b", {}, method.toUpperCase()), ` ${path}`)),
    ...markdown(operation.description ?? ""),
    h("pre", { tabindex: "0" }, h("code", {}, curl(schemas, method, path, body))),
    ...(body ? [h("h3", {}, "Fields of the request"), fieldList(schemas, body)] : []),
    ...answerParts(schemas, operation.responses["200"]?.content),
    statuses(operation.responses),
  );
}

function operations(document) {
  const all = Object.entries(document.paths).flatMap(([path, item]) =>
    METHODS.filter((method) => item[method]).map((method) => ({ method, path, operation: item[method] })),
  );
  const tags = [...new Set([...Object.keys(PARTS), ...all.map(({ operation }) => operation.tags?.[0] ?? "")])];
  return tags.map((tag) => [PARTS[tag] ?? tag, all.filter(({ operation }) => (operation.tags?.[0] ?? "") === tag)]).filter(([, some]) => some.length);
}

function show(openapi) {
  const schemas = new Schemas(openapi);
  const parts = operations(openapi);
  const link = ({ path, operation }) => h("a", { href: `#${operation.operationId}` }, path);
  $("contents").replaceChildren(...parts.flatMap(([name, some]) => [h("h2", {}, name), ...some.map(link)]));
  $("routes").replaceChildren(...markdown(openapi.info.description ?? ""), ...parts.flatMap(([, some]) => some.map((each) => section(schemas, each))));
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

async function load() {
  const key = kept(sessionStorage, "key", "");
  const response = await fetch("openapi.json", { headers: key ? { Authorization: `Bearer ${key}` } : {} });
  if (response.ok) return show(await response.json());
  const hint = response.status === 401 ? "The service asks for a key: enter it in the settings of the page “Ask”, then come back." : "";
  $("status").textContent = hint || `The service answered with status ${response.status}.`;
}

load().catch(() => {
  $("status").textContent = "The service cannot be reached.";
});
