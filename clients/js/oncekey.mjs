// Sends one operation until it is settled: the same key and the same bytes in each try, and no try
// after a final answer. The rules are those of docs/clients.md in github.com/oncekey/oncekey.
// Copy this file. It needs `fetch`: any current browser, Node 20 or later. MIT OR Apache-2.0.

/** When to stop and how long to wait; times in milliseconds. `send` takes each as an option. */
export const defaults = {
  tries: 5, deadline: 60_000, tryTimeout: 35_000, // the server answers within 30 s
  backoff: 100, maxBackoff: 5_000, maxWait: 30_000,
  ttl: 24 * 3_600_000, margin: 3_600_000,
  header: "Idempotency-Key", replayed: "Idempotent-Replayed",
  fetch: (...args) => globalThis.fetch(...args), now: () => Date.now(), random: () => Math.random(),
  sleep: (ms, signal) => new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const stop = () => { clearTimeout(timer); reject(signal.reason); };
    const timer = setTimeout(() => { signal?.removeEventListener("abort", stop); resolve(); }, ms);
    signal?.addEventListener("abort", stop, { once: true });
  }),
};

/**
 * Sends the operation and resolves to `{ result, response, key, tries }`. `result` is
 *   "done"          `response` is final, be it 201 or 404
 *   "unknown"       the operation may have happened or not: look it up, never send it under a new key
 *   "notStored"     the operation happened, but its response is not kept: fetch the outcome
 *   "bug"           this client is wrong; `response` explains it
 *   "unauthorized"  nothing happened: refresh the credentials, then send again with the same key
 *   "gaveUp"        not settled: send again later with the same key (`response` may be missing)
 *   "expired"       not sent: the server may have forgotten the key by now; look the operation up
 * `body` is a string or a Uint8Array. With `store` the operation is saved before its first try, and a
 * later `send(null, { key, store })` repeats it, across restarts; call `store.delete(key)` after the
 * outcome is recorded. Credentials are not saved: pass `headers` with each call.
 * Rejects when `signal` aborts; the operation is then not settled.
 */
export async function send(url, { method = "POST", body = "", headers, key, store, signal, ...options } = {}) {
  const o = { ...defaults, ...options };
  const fields = new Headers(headers);
  key ??= fields.get(o.header) ?? newKey(o.now());
  if (typeof body !== "string" && !(body instanceof Uint8Array))
    throw new TypeError("oncekey: the body is a string or a Uint8Array; a stream cannot be sent twice, an object is serialised once by its owner");
  let operation = await store?.get(key);
  if (!operation) {
    if (url == null) throw new TypeError("oncekey: no URL, and the store does not have this key");
    if (store && typeof body !== "string") throw new TypeError("oncekey: a store keeps strings, not bytes");
    const type = fields.get("content-type") ?? "application/json";
    operation = { url: String(url), method, type, body, at: o.now() };
    await store?.put(key, operation);
  }
  const start = o.now();
  if (start - operation.at > o.ttl - o.margin) return { result: "expired", key, tries: 0 };
  fields.set(o.header, key);
  fields.set("content-type", operation.type);
  for (let tries = 1, failed = 0; ; tries++) {
    const answer = await attempt(operation, fields, signal, o);
    const verdict = decide(answer, o);
    const settled = (result) => ({ result, response: answer.response, key, tries });
    if (typeof verdict === "string") return settled(verdict);
    if (!verdict.locked && ++failed >= o.tries) return settled("gaveUp");
    const ceiling = verdict.wait === undefined ? Math.min(o.maxBackoff, o.backoff * 2 ** (tries - 1)) : o.backoff;
    const wait = Math.min(verdict.wait ?? 0, o.maxWait) + o.random() * ceiling;
    if (o.now() - start + wait > o.deadline) return settled("gaveUp");
    await o.sleep(wait, signal);
  }
}

/** One try: `{ response, problem }`, or `{}` when no complete answer came. */
async function attempt({ url, method, body }, headers, signal, o) {
  signal?.throwIfAborted();
  const timeout = AbortSignal.timeout(o.tryTimeout);
  const either = signal ? AbortSignal.any([signal, timeout]) : timeout;
  try {
    const response = await o.fetch(url, { method, body, headers, signal: either, redirect: "manual" });
    const text = await response.clone().text(); // to its end: a broken answer counts as none
    const isProblem = /^application\/problem\+json\s*(;|$)/i.test(response.headers.get("content-type") ?? "");
    let problem;
    try { problem = isProblem && response.status >= 400 ? JSON.parse(text) : undefined; } catch { /* not JSON */ }
    return { response, problem };
  } catch {
    signal?.throwIfAborted();
    return {};
  }
}

/** The result, or `{ wait, locked }` when the same must be sent again. The first matching line decides. */
function decide({ response, problem }, o) {
  if (!response) return {};
  if (response.headers.get(o.replayed) === "true") return "done";
  const wait = asked(response, problem);
  switch (problem?.code) {
    case "idempotency_key_locked": return { wait, locked: true };
    case "idempotency_store_unavailable": case "upstream_unreachable": case "idempotency_overloaded":
    case "idempotency_body_unreadable": case "idempotency_body_timeout": return { wait };
    case "idempotency_outcome_unknown": return "unknown";
    case "idempotency_response_not_stored": return "notStored";
    case "idempotency_key_mismatch": case "idempotency_key_invalid": case "idempotency_key_missing":
    case "idempotency_scope_missing": case "idempotency_body_too_large": return "bug";
  }
  const { status } = response;
  if (status === 401) return "unauthorized";
  return [408, 425, 429].includes(status) || status >= 500 ? { wait } : "done";
}

/** How long the server asks to wait, if it does. A date counts from the Date of the answer. */
function asked(response, problem) {
  if (problem?.retryAfterMs >= 0 && typeof problem.retryAfterMs === "number") return problem.retryAfterMs;
  const after = response.headers.get("retry-after");
  if (/^\d+$/.test(after ?? "")) return Number(after) * 1_000;
  const ms = Date.parse(after) - Date.parse(response.headers.get("date"));
  return ms >= 0 ? ms : undefined;
}

/** A new key: a UUID, version 7. */
export function newKey(now = Date.now()) {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  for (let i = 0; i < 6; i++) bytes[i] = Math.floor(now / 2 ** (40 - 8 * i)) % 256;
  bytes[6] = 0x70 | (bytes[6] & 0x0f);
  bytes[8] = 0x80 | (bytes[8] & 0x3f);
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

/** A store in memory, for tests: a restart loses it. Every store has these four methods. */
export function memoryStore(map = new Map()) {
  return { get: (key) => map.get(key), put: (key, operation) => map.set(key, operation),
    delete: (key) => map.delete(key), keys: () => [...map.keys()] };
}

/** A store in the browser's `localStorage`. */
export function localStore(storage = globalThis.localStorage, prefix = "oncekey:") {
  return { get: (key) => JSON.parse(storage.getItem(prefix + key)) ?? undefined,
    put: (key, operation) => storage.setItem(prefix + key, JSON.stringify(operation)),
    delete: (key) => storage.removeItem(prefix + key),
    keys: () => Object.keys(storage).filter((name) => name.startsWith(prefix)).map((name) => name.slice(prefix.length)) };
}
