// The service as the page sees it. In: questions. Out: what comes back, as events or one error class. Knows nothing of the page.

/** What came instead of an answer. `kind` is the service's word, or "unreachable" or "cut_off" where it did not speak. */
export class ServiceError extends Error {
  constructor(kind, message = "", { status = 0, request = "", waitS = 0 } = {}) {
    super(message);
    Object.assign(this, { kind, status, request, waitS });
  }
}

/** Fetch a path of the service; anything but a success is thrown. */
async function call(path, { key = "", body, signal } = {}) {
  const headers = {};
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body) headers["Content-Type"] = "application/json";
  const options = { method: body ? "POST" : "GET", headers, signal, cache: "no-store", referrerPolicy: "no-referrer" };
  const response = await spoken(fetch(path, { ...options, body: body && JSON.stringify(body) }));
  if (!response.ok) throw await failure(response);
  return response;
}

/** Wait for the network; its own errors become a `ServiceError`, an abort stays what it is. */
async function spoken(waiting, kind = "unreachable") {
  try {
    return await waiting;
  } catch (err) {
    throw err.name === "AbortError" || err instanceof ServiceError ? err : new ServiceError(kind);
  }
}

async function failure(response) {
  const told = await response.json().catch(() => ({}));
  const error = told?.error ?? {};
  const waitS = Number.parseInt(response.headers.get("retry-after") ?? "", 10) || 0;
  const request = response.headers.get("x-request-id") ?? "";
  return new ServiceError(error.code || error.type || "", error.message ?? "", { status: response.status, request, waitS });
}

/** Return what `/readyz` says; it never throws. */
export async function readiness() {
  try {
    const told = await (await call("readyz")).json();
    return { ...told, state: told.status === "degraded" ? "degraded" : "ready" };
  } catch (err) {
    return { state: err.kind === "unreachable" ? "unreachable" : "loading", reason: err.message };
  }
}

/** Return the name of the model that answers, "" where the service has none. */
export async function answeringModel(key, signal) {
  const { data } = await (await call("v1/models", { key, signal })).json();
  return data.find((model) => model.used_for === "chat")?.id ?? "";
}

/** Return the passages of a query in the shape of citations. */
export async function search(query, { k, key, signal }) {
  const response = await call("v1/search", { key, signal, body: { query, ...(k ? { k } : {}) } });
  const found = await spoken(response.json(), "cut_off");
  const citations = found.hits.map((hit, row) => ({ number: row + 1, id: hit.id, title: hit.title, text: hit.text, score: hit.score }));
  return { citations, snapshot: found.snapshot, request: response.headers.get("x-request-id") ?? "" };
}

/**
 * Answer the last of `messages`. Yields `{type: "open", ...}` with what the headers say, `{type: "text", text}` for each
 * piece, and `{type: "end", ...}`, all of which are fields of a turn.
 */
export async function* answer(messages, { model, retrieval, key, signal }) {
  const body = { model, messages, retrieval, stream: true, stream_options: { include_usage: true } };
  const response = await call("v1/chat/completions", { key, signal, body });
  const head = (name) => response.headers.get(name) ?? "";
  const request = head("x-request-id");
  yield { type: "open", snapshot: head("x-ragray-snapshot"), run: head("x-ragray-run"), request, searchMs: stageMs(head("server-timing"), "retrieve") };
  const end = { type: "end", citations: [], finish: "", usage: null };
  for await (const data of events(response.body)) {
    if (data === "[DONE]") {
      yield end;
      return;
    }
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ServiceError(chunk.error.code || chunk.error.type, chunk.error.message, { request });
    const choice = chunk.choices?.[0];
    if (choice?.delta?.content) yield { type: "text", text: choice.delta.content };
    end.finish = choice?.finish_reason ?? end.finish;
    end.citations = chunk.citations ?? end.citations;
    end.usage = chunk.usage ?? end.usage;
  }
  throw new ServiceError("cut_off", "", { request });
}

/** Return the milliseconds of a stage in a `Server-Timing` header, null where it does not stand there. */
export function stageMs(header, stage) {
  const entry = header.split(",").map((part) => part.trim().split(";")).find(([name]) => name === stage);
  const duration = entry?.find((part) => part.trim().startsWith("dur="));
  return duration ? Number(duration.trim().slice(4)) : null;
}

/** Yield the data of each server-sent event of a body. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let data = [];
  for (;;) {
    const { value, done } = await spoken(reader.read(), "cut_off");
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines.map((each) => each.replace(/\r$/, ""))) {
      if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
      if (line === "" && data.length) {
        yield data.join("\n");
        data = [];
      }
    }
  }
}
