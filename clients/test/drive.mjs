// Drives oncekey.mjs for check.py, which describes the modes.
import { closeSync, existsSync, fsyncSync, openSync, readFileSync, readdirSync, renameSync, unlinkSync, writeSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { memoryStore, newKey, send } from "../js/oncekey.mjs";

const [mode, url, directory, count] = process.argv.slice(2);

if (mode === "cases") for await (const line of createInterface({ input: process.stdin })) {
  const { url, key, body, tryTimeout } = JSON.parse(line), waitsMs = [];
  const sum = () => waitsMs.reduce((a, b) => a + b, 0);
  const sleep = async (ms) => { waitsMs.push(ms); };
  const sent = await send(url, { key, body, sleep, now: () => 1.7e12 + sum(), tryTimeout: tryTimeout * 1000 });
  console.log(JSON.stringify({ result: sent.result, waitsMs, key: sent.key, tries: sent.tries }));
}

if (mode === "old") {
  const store = memoryStore(), start = 1.7e12, hours = 3_600_000, results = [];
  for (const [target, age] of [[url, 0], [null, 23 * hours], [null, 23 * hours + 1000]])
    results.push((await send(target, { key: "old-js", body: "old js", store, now: () => start + age })).result);
  store.delete("old-js");
  console.log(JSON.stringify([...results, store.keys().length]));
}

if (mode === "stream") await send(url, { body: new Blob(["x"]).stream() });

// Writes a file so that it is complete or absent.
function save(path, text) {
  const file = openSync(path + ".part", "w");
  writeSync(file, text); fsyncSync(file); closeSync(file);
  renameSync(path + ".part", path);
}
const name = (n) => join(directory, n);

// The caller's own record of an operation has its key; the helper's store has the request.
if (mode === "orders") {
  const file = (key) => name(`${key}.operation`);
  const store = {
    get: (key) => existsSync(file(key)) ? JSON.parse(readFileSync(file(key), "utf8")) : undefined,
    put: (key, operation) => save(file(key), JSON.stringify(operation)),
    delete: (key) => { if (existsSync(file(key))) unlinkSync(file(key)); },
    keys: () => readdirSync(directory).filter((f) => f.endsWith(".operation")).map((f) => f.slice(0, -10)),
  };
  for (let n = 0; n < Number(count); n++) {
    if (existsSync(name(`${n}.done`))) continue;
    if (!existsSync(name(`${n}.key`))) save(name(`${n}.key`), newKey());
    const key = readFileSync(name(`${n}.key`), "utf8"), body = readFileSync(name(`${n}.body`), "utf8");
    const sent = await send(url, { key, body, store, backoff: 2 });
    if (sent.result !== "done") throw new Error(`${n}: ${sent.result}`);
    save(name(`${n}.done`), await sent.response.text());
    store.delete(key);
    console.log(n);
  }
}
