// The console for operators: one module, without a framework or a build. All text reaches the page
// through textContent. Every URL is relative to the page, which therefore works under any prefix.

// ---- Words and numbers ----

const integer = new Intl.NumberFormat("en"), short = new Intl.NumberFormat("en", { notation: "compact" });
const number = (n) => (n == null ? "–" : n >= 100 || Number.isInteger(n) ? integer.format(Math.round(n)) : n.toFixed(n >= 10 ? 1 : 2));
const plural = (n, one, many = one + "s") => `${number(n)} ${n === 1 ? one : many}`;
function bytes(n) {
	if (n == null) return "–";
	const units = ["B", "KiB", "MiB", "GiB", "TiB"];
	let unit = 0;
	for (; n >= 1024 && unit < 4; unit++) n /= 1024;
	return `${unit && n < 100 && !Number.isInteger(n) ? n.toFixed(1) : Math.round(n)} ${units[unit]}`;
}
function duration(ms) {
	if (ms == null) return "–";
	if (ms === 0) return "0";
	if (ms < 1) return `${Math.round(ms * 1000)} µs`;
	if (ms < 1000) return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
	const s = ms / 1000;
	if (s < 60) return `${s < 10 ? s.toFixed(1) : Math.floor(s)} s`;
	const [m, h, d] = [Math.floor(s / 60), Math.floor(s / 3600), Math.floor(s / 86400)];
	if (m < 60) return `${m} min ${Math.floor(s % 60)} s`;
	return h < 24 ? `${h} h ${m % 60} min` : `${d} d ${h % 24} h`;
}
const two = (n) => String(n).padStart(2, "0");
const clock = (date, seconds = true) => `${two(date.getHours())}:${two(date.getMinutes())}${seconds ? ":" + two(date.getSeconds()) : ""}`;
const day = (date) => `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
/** Local time; the tooltip has UTC. */
function moment(ms) {
	if (ms == null) return h("span", {}, "–");
	const date = new Date(ms), utc = date.toISOString();
	return h("time", { dateTime: utc, title: utc.replace("T", " ").slice(0, 19) + " UTC" }, `${day(date)} ${clock(date)}`);
}
/** Encodes a key or scope, typed or as the API shows it, for a query: %XX is a byte, the rest is UTF-8. */
function encoded(text) {
	const units = text.match(/%[0-9a-fA-F]{2}|[\s\S]/gu) ?? [];
	return units.map((unit) => (unit.length === 3 && unit[0] === "%" ? unit : encodeURIComponent(unit))).join("");
}

// ---- The page ----

function h(name, props = {}, ...children) {
	const element = document.createElement(name);
	for (const [key, value] of Object.entries(props)) {
		if (key in element) element[key] = value;
		else element.setAttribute(key, value);
	}
	element.append(...children);
	return element;
}
function s(name, attributes = {}, ...children) {
	const element = document.createElementNS("http://www.w3.org/2000/svg", name);
	for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
	element.append(...children);
	return element;
}
/** A copy of a template, and its elements by their data-ref. */
function template(id) {
	const root = document.getElementById(id).content.cloneNode(true);
	const refs = {};
	for (const element of root.querySelectorAll("[data-ref]")) refs[element.dataset.ref] = element;
	return { root, ...refs };
}
/** Sets text only if it differs: a refresh must disturb neither selection nor screen reader. */
function say(element, text) {
	if (element.textContent !== text) element.textContent = text;
}
const CONTROLS = "button, input, a";
/**
 * Makes the children of `parent` match `items`, reused by key, so that focus stays. If the focused
 * element goes, focus moves to the same control of the next element.
 */
function patch(parent, items, keyOf, make, update) {
	const old = (parent.rows_ ??= new Map()), kept = new Map();
	for (const item of items) {
		const key = keyOf(item), element = old.get(key) ?? make(item);
		kept.set(key, element);
		update(element, item);
	}
	// First, since an element that moves loses focus.
	for (const [key, element] of old) {
		if (kept.has(key)) continue;
		if (element.contains(document.activeElement)) {
			const place = [...element.querySelectorAll(CONTROLS)].indexOf(document.activeElement);
			(element.nextElementSibling?.querySelectorAll(CONTROLS)[place] ?? main()).focus();
		}
		element.remove();
	}
	let at = parent.firstElementChild;
	for (const element of kept.values()) {
		if (element === at) at = at.nextElementSibling;
		else parent.insertBefore(element, at);
	}
	parent.rows_ = kept;
}
function tiles(list, items) {
	patch(list, items, (item) => item.name, (item) => h("div", {}, h("dt", {}, item.name), h("dd"), h("dd", { className: "more" })), (element, item) => {
		say(element.children[1], item.value);
		say(element.children[2], item.more ?? "");
		if (!item.spark) return;
		const old = element.querySelector("svg"), drawn = sparkline(item.spark);
		old ? old.replaceWith(drawn) : element.append(drawn);
	});
}
const main = () => document.getElementById("main");
const remembered = (name, fallback) => { try { return localStorage.getItem("oncekey-" + name) ?? fallback; } catch { return fallback; } };
const remember = (name, value) => { try { localStorage.setItem("oncekey-" + name, value); } catch { /* Private windows may refuse. */ } };

// ---- The API ----

/** Filled in by the server: the relative path of the API, and who asks for the login. */
const { api: API, login: LOGIN } = document.documentElement.dataset;

class Refused extends Error {
	constructor(status, message) { super(message); this.status = status; }
}
/** Answers are JSON. Throws `Refused` when the server refuses, another error when no answer comes. */
async function api(path, { method = "GET", body } = {}) {
	const headers = { Accept: "application/json" };
	if (method !== "GET") {
		headers["Content-Type"] = "application/json";
		if (state.info?.csrf) headers["Oncekey-Csrf"] = state.info.csrf;
	}
	const answer = await fetch(API + path, {
		method, headers, body: body === undefined ? undefined : JSON.stringify(body),
		credentials: "same-origin", cache: "no-store", signal: AbortSignal.timeout(method === "GET" ? 10_000 : 60_000),
	});
	const text = await answer.text();
	let value = null;
	try { value = text ? JSON.parse(text) : null; } catch { /* A proxy's error page. */ }
	if (answer.ok) return value;
	if ([502, 503, 504].includes(answer.status) && value === null) throw new Error(`the server in front answers ${answer.status}`);
	throw new Refused(answer.status, value?.error ?? `the server answers ${answer.status}`);
}

const state = { info: null, stats: null, series: null, window: "15m", paused: false, screen: null, failures: 0, lostSince: null, frame: null, timer: 0 };
const operator = () => state.info?.role === "operator" && !state.info.readOnly;

// ---- Login ----

function login(note) {
	clearTimeout(state.timer);
	state.screen?.leave?.();
	document.querySelectorAll("dialog").forEach((dialog) => dialog.remove());
	Object.assign(state, { info: null, stats: null, series: null, frame: null, screen: null, failures: 0, lostSince: null });
	document.title = "oncekey";
	enter(false);
	const view = template("t-login");
	if (note) { view.note.textContent = note; view.note.hidden = false; }
	const token = view.form.elements.token;
	const fail = (text) => { view.error.textContent = text; token.setAttribute("aria-invalid", "true"); token.focus(); };
	view.form.addEventListener("submit", async (event) => {
		event.preventDefault();
		view.error.textContent = "";
		if (!token.value.trim()) return fail("Enter the token.");
		try {
			await api("session", { method: "POST", body: { token: token.value.trim() } });
			enter(true);
			await start();
		} catch (error) {
			if (error.status === 429) fail("Too many wrong tokens. Wait a minute.");
			else if (error.status === 404) fail("This server has its own login. Load the page again.");
			else fail(error.status ? "This token is not known here." : "The server does not answer.");
		}
	});
	document.getElementById("app").replaceChildren(view.root);
	token.focus();
}

/** Whether this browser has logged in. A request without a session would log an error in the browser. */
const entered = () => LOGIN === "own" || state.entered || remembered("entered", "") === "yes";
function enter(is) {
	state.entered = is;
	remember("entered", is ? "yes" : "no");
}

async function start() {
	// A link of `oncekey console` has a token that works once.
	const link = location.hash.match(/^#token=(.+)$/);
	if (link) {
		history.replaceState(null, "", location.pathname + location.search + "#/overview");
		await api("session", { method: "POST", body: { token: decodeURIComponent(link[1]) } }).then(() => enter(true), () => {});
	}
	if (!entered()) return login();
	try {
		state.info = await api("info");
	} catch (error) {
		if (error.status === 401) return login();
		return login(error.status ? error.message : "The server does not answer.");
	}
	frame();
	show();
}

// ---- Frame ----

const SCREENS = [
	{ id: "overview", name: "Overview", key: "v", make: overview }, { id: "orphans", name: "Orphans", key: "o", make: orphans },
	{ id: "lookup", name: "Look up", key: "k", make: lookup }, { id: "store", name: "Store", key: "s", make: store },
	{ id: "backups", name: "Backups", key: "b", make: backups }, { id: "about", name: "About", key: "a", make: about },
];

function frame() {
	const view = template("t-frame");
	state.frame = view;
	for (const screen of SCREENS) {
		const link = h("a", { href: `#/${screen.id}` }, screen.name);
		if (screen.id === "orphans") link.append(" ", (view.pill = h("span", { className: "pill", hidden: true })));
		screen.link = link;
		view.nav.append(h("li", {}, link));
	}
	view.theme.value = remembered("theme", "auto");
	view.theme.addEventListener("change", () => { remember("theme", view.theme.value); theme(); state.screen?.draw?.(); });
	view.help.addEventListener("click", help);
	view.tryNow.addEventListener("click", poll);
	view.skip.addEventListener("click", (event) => { event.preventDefault(); main().focus(); });
	view.logout.addEventListener("click", async () => {
		await api("session", { method: "DELETE" }).catch(() => {});
		login("You are logged out.");
	});
	document.getElementById("app").replaceChildren(view.root);
	facts();
}

/** Level, name and explanation of the health, by the server and the statistics. */
function health() {
	const engine = state.stats?.engine ?? {}, said = state.info?.health ?? "";
	if (state.lostSince) return ["bad", "no connection", "The figures are old."];
	if (/failed/.test(said)) return ["bad", "store failed", "New keys are refused with 503; replays continue. Check the disk, then reopen the store."];
	if (/full/.test(said) || engine.full) return ["bad", "store full", "New keys are refused with 503; replays continue. The store recovers by itself when space is freed."];
	if (/draining/.test(said)) return ["warn", "draining", "The process is ending: it takes no new connections."];
	if (/upstream/.test(said)) return ["warn", "upstream down", "The store works. No upstream answers its health check."];
	return ["ok", "ok", ""];
}

function facts() {
	const view = state.frame, info = state.info, [level, word] = health();
	if (!view) return;
	say(view.store, info.store ?? "");
	view.store.title = info.store ?? "";
	view.health.className = `health ${level}`;
	say(view.healthText, word);
	say(view.role, info.role ?? "operator");
	view.readOnly.hidden = !info.readOnly;
	view.logout.hidden = !info.csrf;
	const unknown = state.stats?.engine.orphans ?? 0;
	view.pill.hidden = !unknown;
	say(view.pill, number(unknown));
	const title = `${unknown ? `(${number(unknown)}) ` : ""}oncekey`;
	if (document.title !== title) document.title = title;
	view.lost.hidden = !state.lostSince;
	if (state.lostSince) say(view.lostText, `Connection lost since ${clock(state.lostSince)}. Trying again.`);
}

function announce(text) {
	if (state.frame) state.frame.live.textContent = text;
}

function show() {
	if (!state.frame) return;
	const [name, query] = location.hash.replace(/^#\/?/, "").split("?");
	const screen = SCREENS.find((one) => one.id === name) ?? SCREENS[0];
	state.screen?.leave?.();
	for (const one of SCREENS) one === screen ? one.link.setAttribute("aria-current", "page") : one.link.removeAttribute("aria-current");
	const first = !state.screen;
	state.screen = screen.make(new URLSearchParams(query));
	main().replaceChildren(state.screen.root);
	if (!first) { main().focus({ preventScroll: true }); scrollTo(0, 0); }
	poll();
}

/** Loads the figures of the screen; again after 2 s, after up to 15 s on failures, 15 s when hidden. */
async function poll() {
	clearTimeout(state.timer);
	const screen = state.screen, turn = (state.turn = {});
	try {
		const [stats] = await Promise.all([api("stats"), refreshInfo(), state.paused ? null : screen?.load?.()]);
		if (turn !== state.turn || !state.frame) return;
		state.stats = stats;
		Object.assign(state, { failures: 0, lostSince: null });
		const now = new Date();
		state.frame.updated.dateTime = now.toISOString();
		say(state.frame.updated, clock(now));
	} catch (error) {
		if (turn !== state.turn || !state.frame) return;
		if (error.status === 401) return login("Your session is over. Log in again.");
		state.failures += 1;
		// A refusal is an answer: the connection works.
		state.lostSince ??= error.status ? null : new Date();
	}
	facts();
	if (state.screen === screen) screen?.draw?.();
	const wait = document.hidden ? 15_000 : Math.min(2_000 * 2 ** Math.max(0, state.failures - 1), 15_000);
	clearTimeout(state.timer);
	state.timer = setTimeout(poll, wait);
}

async function refreshInfo() {
	state.info = { ...state.info, ...(await api("info")) };
}

// ---- Charts ----

/** At most `count` points: the mean or the largest value of each section. */
function thinned(values, count, how) {
	if (values.length <= count) return values;
	const out = [];
	for (let i = 0; i < count; i++) {
		const part = values.slice(Math.floor((i * values.length) / count), Math.floor(((i + 1) * values.length) / count)).filter((value) => value != null);
		out.push(part.length ? (how === "max" ? Math.max(...part) : part.reduce((a, b) => a + b, 0) / part.length) : null);
	}
	return out;
}
/** A round upper end of an axis. */
function ceiling(most, base) {
	if (!(most > 0)) return 1;
	const unit = base === 1024 ? 1024 ** Math.max(0, Math.floor(Math.log2(most) / 10)) : 1;
	const scale = 10 ** Math.floor(Math.log10(most / unit));
	return [1, 1.5, 2, 3, 4, 6, 8, 10].map((step) => step * scale * unit).find((end) => end >= most * 1.02) ?? 20 * scale * unit;
}
const range = (n) => Array.from({ length: n }, (_, i) => i);

function sparkline(values) {
	const points = thinned(values, 80, "max"), top = Math.max(...points.map((v) => v ?? 0), 1);
	const path = points.map((v, i) => `${i ? "L" : "M"}${((i / Math.max(1, points.length - 1)) * 100).toFixed(1)} ${(23 - ((v ?? 0) / top) * 21).toFixed(1)}`).join("");
	return s("svg", { class: "spark", viewBox: "0 0 100 26", preserveAspectRatio: "none", "aria-hidden": "true" }, s("path", { d: path, class: "l l-run", "vector-effect": "non-scaling-stroke" }));
}

/** The base of all plots: a cursor for pointer and arrow keys, its values as text, all values as a table. */
class Plot {
	constructor(view, label, draw, rows) {
		Object.assign(this, { view, draw, rows, at: null, count: 0 });
		view.plot.setAttribute("aria-label", `${label}. Arrow keys read values`);
		view.table.setAttribute("aria-label", `${label}, as a table`);
		view.asTable.addEventListener("click", () => {
			const on = view.table.hidden;
			view.asTable.setAttribute("aria-pressed", on);
			view.table.hidden = !on;
			view.plot.hidden = on;
			this.refresh();
		});
		view.plot.addEventListener("pointermove", (event) => {
			const box = view.plot.getBoundingClientRect();
			this.move(Math.round(((event.clientX - box.left - this.left) / (box.width - this.left - 6)) * (this.count - 1)));
		});
		view.plot.addEventListener("pointerleave", () => { if (document.activeElement !== view.plot) this.move(null); });
		view.plot.addEventListener("blur", () => this.move(null));
		view.plot.addEventListener("focus", () => { if (this.at === null) this.move(this.count - 1); });
		view.plot.addEventListener("keydown", (event) => {
			const step = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10, Home: -1e9, End: 1e9 }[event.key];
			if (!step) return;
			event.preventDefault();
			this.move((this.at ?? this.count - 1) + step);
		});
		new ResizeObserver(() => this.refresh()).observe(view.plot);
	}
	get left() { return 54; }
	move(at) {
		this.at = at === null || !this.count ? null : Math.max(0, Math.min(this.count - 1, at));
		this.refresh();
	}
	refresh() {
		const width = Math.max(240, Math.round(this.view.plot.clientWidth || 480));
		const { svg, count, words, head, table } = this.draw(width, 170, this.left, this.at);
		this.count = count;
		if (!this.view.table.hidden) return this.fill(head, table());
		this.view.plot.replaceChildren(svg);
		const text = count ? words(this.at ?? count - 1) : "no data yet";
		say(this.view.readout, text);
		this.view.plot.setAttribute("aria-valuemax", Math.max(0, count - 1));
		this.view.plot.setAttribute("aria-valuenow", this.at ?? Math.max(0, count - 1));
		this.view.plot.setAttribute("aria-valuetext", text);
	}
	fill(head, rows) {
		const cells = (values, name) => values.map((value, i) => h(i && name === "td" ? "td" : "th", { scope: name === "th" ? "col" : "row", className: i ? "num" : "" }, value));
		const scrolled = this.view.table.scrollTop;
		this.view.table.replaceChildren(h("table", {}, h("thead", {}, h("tr", {}, ...cells(head, "th"))), h("tbody", {}, ...rows.map((row) => h("tr", {}, ...cells(row, "td"))))));
		this.view.table.scrollTop = scrolled;
		say(this.view.readout, "");
	}
}

/** The frame of a plot: grid lines with their values. */
function axes(width, height, left, top, format) {
	const y = (value) => height - 22 - (value / top) * (height - 34);
	const svg = s("svg", { viewBox: `0 0 ${width} ${height}`, height, "aria-hidden": "true", focusable: "false" });
	for (const part of [0, 0.5, 1]) {
		svg.append(s("line", { class: "grid", x1: left, x2: width - 6, y1: y(top * part), y2: y(top * part) }));
		svg.append(s("text", { class: "axis", x: left - 6, y: y(top * part) + 4, "text-anchor": "end" }, format(top * part)));
	}
	return { svg, y };
}

/** Values over time. `parts`: {label, style, values(series)}; stacked areas, or lines. */
function timeChart({ title, kind, parts, format, how = "mean", base }) {
	const view = template("t-chart");
	view.title.textContent = title;
	const figure = view.root.firstElementChild;
	for (const part of parts) {
		const swatch = kind === "stack" ? s("rect", { width: 18, height: 12, fill: `url(#p-${part.style})` }) : s("path", { d: "M0 6H18", class: `l l-${part.style}` });
		view.legend.append(h("li", {}, s("svg", { viewBox: "0 0 18 12", "aria-hidden": "true" }, swatch), part.label));
	}
	const plot = new Plot(view, title, (width, height, left, at) => {
		const series = state.series;
		const all = parts.map((part) => series && part.values(series));
		figure.hidden = !!series && all.every((values) => !values);
		parts.forEach((_, i) => { view.legend.children[i].hidden = !!series && !all[i]; });
		const length = series ? Math.max(0, ...all.map((values) => values?.length ?? 0)) : 0;
		const count = Math.min(length, 300);
		const lines = all.map((values) => thinned(values ?? [], count, how));
		const time = (i, points = count) => new Date(series.endMs - ((points - 1 - i) / Math.max(1, points)) * length * series.stepMs);
		const shown = lines.map((line, i) => (kind !== "stack" ? line : line.map((_, j) => lines.slice(0, i + 1).reduce((sum, below) => sum + (below[j] ?? 0), 0))));
		const top = ceiling(Math.max(0, ...shown.flat().map((value) => value ?? 0)), base);
		const { svg, y } = axes(width, height, left, top, format === number ? (n) => short.format(n) : format);
		const x = (i) => left + (i / Math.max(1, count - 1)) * (width - left - 6);
		const point = (value, i) => `${x(i).toFixed(1)} ${y(value).toFixed(1)}`;
		for (const i of range(parts.length).reverse()) {
			if (!count || shown[i].every((value) => value == null)) continue;
			if (kind === "stack") {
				const below = i ? shown[i - 1] : shown[i].map(() => 0);
				if (shown[i].every((value, j) => value === below[j])) continue;
				const edge = shown[i].map(point).join("L"), back = below.map(point).reverse().join("L");
				svg.append(s("path", { d: `M${edge}L${back}Z`, fill: `url(#p-${parts[i].style})` }));
			} else {
				let pen = "M";
				const path = shown[i].map((value, j) => { if (value == null) { pen = "M"; return ""; } const move = pen + point(value, j); pen = "L"; return move; });
				svg.append(s("path", { d: path.join(""), class: `l l-${parts[i].style}` }));
			}
		}
		if (count) {
			const ticks = width < 380 ? 3 : 5;
			for (const tick of range(ticks)) {
				const i = Math.round((tick / (ticks - 1)) * (count - 1));
				svg.append(s("text", { class: "axis", x: x(i), y: height - 5, "text-anchor": tick === 0 ? "start" : tick === ticks - 1 ? "end" : "middle" }, clock(time(i), length * series.stepMs < 6e5)));
			}
		}
		if (at !== null && count) svg.append(s("line", { class: "cursor", x1: x(at), x2: x(at), y1: 6, y2: height - 22 }));
		const shownAs = (value) => (value == null ? "–" : format(value));
		const words = (i) => `${clock(time(i))}  ·  ${parts.map((part, j) => (all[j] ? `${part.label} ${shownAs(lines[j][i])}` : "")).filter(Boolean).join("  ·  ")}`;
		const table = () => {
			const rows = all.map((values) => thinned(values ?? [], Math.min(length, 15), how));
			return range(Math.min(length, 15)).reverse().map((i) => [clock(time(i, Math.min(length, 15))), ...rows.map((row) => shownAs(row[i]))]);
		};
		return { svg, count, words, head: ["Until", ...parts.map((part) => part.label)], table };
	});
	return { figure, draw: () => plot.refresh() };
}

// ---- Overview ----

const rate = (name) => (series) => series[name]?.map((value) => (value == null ? null : (value * 1000) / series.stepMs));
const plain = (name) => (series) => series[name];
const groups = (series) => series.groups?.map((groups, i) => (groups ? series.entries[i] / groups : null));
const OUTCOMES = [
	{ label: "executed", style: "run", values: rate("claimed") }, { label: "replayed", style: "replay", values: rate("replayed") },
	{ label: "locked", style: "locked", values: rate("locked") }, { label: "mismatched", style: "mismatch", values: rate("mismatched") },
	{ label: "unknown", style: "unknown", values: rate("orphaned") }, { label: "errors", style: "error", values: rate("errors") },
];
const CHARTS = [
	{ title: "Requests with a key, per second", kind: "stack", parts: OUTCOMES, format: number },
	{ title: "Latency of requests", kind: "line", how: "max", format: duration, parts: [{ label: "p50", style: "run", values: plain("requestP50Ms") }, { label: "p99", style: "unknown", values: plain("requestP99Ms") }] },
	{ title: "Latency of syncs", kind: "line", how: "max", format: duration, parts: [{ label: "p50", style: "run", values: plain("syncP50Ms") }, { label: "p99", style: "unknown", values: plain("syncP99Ms") }] },
	{ title: "Changes made durable by one sync", kind: "line", format: number, parts: [{ label: "group size", style: "run", values: groups }] },
	{ title: "In flight and waiting", kind: "line", how: "max", format: number, parts: [{ label: "in flight", style: "run", values: plain("inFlight") }, { label: "queued for the disk", style: "locked", values: plain("queued") }] },
	{ title: "Room", kind: "line", format: bytes, base: 1024, parts: [{ label: "store", style: "run", values: plain("storeBytes") }, { label: "free on the volume", style: "replay", values: plain("freeBytes") }] },
];

function overview() {
	const view = template("t-overview");
	const charts = CHARTS.map(timeChart);
	let oldest = [];
	view.charts.append(...charts.map((chart) => chart.figure));
	const choose = (window) => {
		state.window = window;
		state.series = null;
		view.short.setAttribute("aria-pressed", window === "15m");
		view.long.setAttribute("aria-pressed", window === "24h");
		load().then(draw, poll);
	};
	const load = async () => {
		const window = state.window, [series, listed] = await Promise.all([api(`series?window=${window}`), api("orphans?limit=3")]);
		if (window === state.window) state.series = series;
		oldest = listed.orphans;
	};
	view.short.addEventListener("click", () => choose("15m"));
	view.long.addEventListener("click", () => choose("24h"));
	view.short.setAttribute("aria-pressed", state.window === "15m");
	view.long.setAttribute("aria-pressed", state.window === "24h");
	const pause = () => { view.pause.setAttribute("aria-pressed", state.paused); say(view.pause, state.paused ? "Resume" : "Pause"); };
	view.pause.addEventListener("click", () => { state.paused = !state.paused; pause(); if (!state.paused) poll(); });
	const draw = () => {
		const engine = state.stats?.engine;
		if (engine || state.lostSince) verdict(view, engine ?? {}, oldest);
		if (!engine || state.paused) return;
		const last = (values) => values?.at(-1), series = state.series, line = (values) => (series && values(series)?.length ? values(series) : null);
		const total = line((series) => OUTCOMES.map((part) => part.values(series) ?? []).reduce((sum, values) => values.map((value, i) => (value ?? 0) + (sum[i] ?? 0)), []));
		tiles(view.tiles, [
			{ name: "Requests per second", value: number(last(total)), more: "with a key", spark: total },
			{ name: "In flight", value: number(engine.inFlight), more: engine.oldestClaimMs == null ? "none" : `oldest ${duration(engine.oldestClaimMs)}`, spark: line(plain("inFlight")) },
			{ name: "Executed", value: number(engine.claimed), more: "since the start", spark: line(rate("claimed")) },
			{ name: "Replayed", value: number(engine.replayed), more: `${number(engine.locked)} locked`, spark: line(rate("replayed")) },
			{ name: "Group size", value: engine.groups ? number(engine.entries / engine.groups) : "–", more: "changes for one sync", spark: line(groups) },
			{ name: "Store", value: bytes(engine.storeBytes), more: last(series?.freeBytes) == null ? `${number(engine.foldedRecords)} records` : `${bytes(last(series.freeBytes))} free`, spark: line(plain("storeBytes")) },
		]);
		for (const chart of charts) chart.draw();
	};
	pause();
	draw();
	return { root: view.root, load, draw, leave: () => { state.paused = false; } };
}

/** Tells whether an operator has to act. */
function verdict(view, engine, oldest) {
	const [level, word, because] = health(), unknown = engine.orphans;
	let [word2, why, shade] = ["All is well.", "Nothing is unresolved.", "ok"];
	if (level !== "ok") [word2, why, shade] = [`${word[0].toUpperCase()}${word.slice(1)}.`, because + (unknown ? ` ${plural(unknown, "outcome is", "outcomes are")} unknown.` : ""), level];
	else if (unknown) [word2, why, shade] = [`${plural(unknown, "outcome is", "outcomes are")} unknown.`, "Their clients are refused until an operator decides. The store works.", "warn"];
	view.verdict.className = `verdict ${shade}`;
	say(view.word, word2);
	say(view.because, why);
	patch(view.oldest, unknown ? oldest : [], identity, (orphan) => h("li", {}, h("b"), link(orphan, label(orphan))), (line, orphan) => say(line.firstChild, duration(Date.now() - orphan.sinceMs)));
	view.decide.hidden = !unknown;
	say(view.decide, operator() ? "Decide" : "Show them");
}

// ---- Orphans ----

const identity = (orphan) => `${orphan.scope} ${orphan.key} ${orphan.token}`;
const link = ({ scope, key }, text = key) => h("a", { href: `#/lookup?scope=${encodeURIComponent(scope)}&key=${encodeURIComponent(key)}`, className: "mono" }, text);
/** A key with its scope in front. */
const label = ({ scope, key }) => (scope ? `${scope} / ${key}` : key);
const tail = (token) => token.slice(-4);
const STEP = 200, AT_ONCE = 100;
/** Keeps the roles of a table, which browsers drop when it is laid out as cards. */
function roles(table) {
	table.setAttribute("role", "table");
	table.querySelectorAll("tr").forEach((row) => row.setAttribute("role", "row"));
	table.querySelectorAll("th").forEach((cell) => cell.setAttribute("role", "columnheader"));
}
const cell = (name, className = "") => h("td", { role: "cell", className, "data-name": name });

function orphans() {
	const view = template("t-orphans"), chosen = new Map();
	let listed = null, total = 0, at = 0, limit = STEP, shown = [];
	const may = operator();
	const all = h("input", { type: "checkbox", ariaLabel: `Select all that are shown, at most ${AT_ONCE}` });
	if (may) {
		view.head.prepend(h("th", { scope: "col" }, h("label", { className: "check" }, all)));
		view.head.append(h("th", { scope: "col" }, h("span", { className: "sr" }, "Action")));
	}
	roles(view.rows.parentElement);
	const load = async (force) => {
		// A long list is not loaded on every poll.
		if (!force && listed && total > 500 && Date.now() - at < 15_000) return;
		// Load the first screenful at once, then the rest.
		const answer = await api(`orphans?limit=${listed ? 100_000 : STEP}`);
		if (!listed && answer.total > STEP) setTimeout(again);
		[listed, total, at] = [answer.orphans, answer.total, Date.now()];
		const there = new Set(listed.map(identity));
		for (const key of chosen.keys()) if (!there.has(key)) chosen.delete(key);
	};
	const again = () => load(true).then(draw, poll);
	const pick = (orphan, on) => {
		if (on && chosen.size >= AT_ONCE) return announce(`At most ${AT_ONCE} at once.`);
		on ? chosen.set(identity(orphan), orphan) : chosen.delete(identity(orphan));
	};
	const make = (orphan) => {
		const row = h("tr", { role: "row" });
		const box = h("input", { type: "checkbox", ariaLabel: `Select ${orphan.key}` });
		box.addEventListener("change", () => { pick(row.orphan, box.checked); draw(); });
		if (may) row.append(h("td", { role: "cell" }, h("label", { className: "check" }, box)));
		row.append(cell("Age", "num"), cell("Scope", "mono"), cell("Key", "mono key"), cell("Attempt", "num"), cell("Checkpoint", "num"), cell("Token ends in", "mono"));
		row.cells_ = [...row.querySelectorAll("[data-name]")];
		const [age, scope, key, attempt, checkpoint, token] = row.cells_;
		age.title = new Date(orphan.sinceMs).toISOString().replace("T", " ").slice(0, 19) + " UTC";
		say(scope, orphan.scope || "–");
		key.append(link(orphan));
		say(attempt, number(orphan.attempt));
		say(checkpoint, orphan.checkpointBytes ? bytes(orphan.checkpointBytes) : "–");
		say(token, tail(orphan.token));
		if (may) {
			const button = h("button", { type: "button", ariaLabel: `Resolve ${orphan.key}` }, "Resolve");
			button.addEventListener("click", () => resolve([row.orphan], again));
			row.append(h("td", { role: "cell" }, button));
		}
		row.box = box;
		return row;
	};
	const draw = () => {
		if (!listed) return;
		const text = view.text.value.trim().toLowerCase(), scope = view.scope.value.trim(), age = Number(view.age.value), late = Date.now() - at;
		const found = listed.filter((orphan) =>
			(!text || orphan.key.toLowerCase().includes(text) || orphan.token.includes(text)) && (!scope || orphan.scope.includes(scope)) && orphan.ageMs + late >= age);
		shown = found.slice(0, limit);
		patch(view.rows, shown, identity, make, (row, orphan) => {
			row.orphan = orphan;
			say(row.cells_[0], duration(orphan.ageMs + late));
			row.box.checked = chosen.has(identity(orphan));
		});
		const filtered = found.length !== listed.length;
		say(view.total, !total ? "" : shown.length === total ? number(total) : `${number(shown.length)} shown${filtered ? ` of ${number(found.length)} that match` : ""}, ${number(total)} in all`);
		view.empty.hidden = total > 0;
		view.scroll.hidden = view.filters.hidden = !total;
		view.more.hidden = found.length <= shown.length;
		view.resolve.hidden = !may || !chosen.size;
		say(view.resolve, `Resolve ${number(chosen.size)} selected`);
		all.checked = shown.length > 0 && shown.slice(0, AT_ONCE).every((orphan) => chosen.has(identity(orphan)));
	};
	all.addEventListener("change", () => {
		if (!all.checked) chosen.clear();
		else for (const orphan of shown.slice(0, AT_ONCE)) if (chosen.size < AT_ONCE) pick(orphan, true);
		draw();
	});
	let typing = 0;
	const refilter = () => { limit = STEP; draw(); announce(view.total.textContent); };
	view.filters.addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(refilter, 80); });
	view.filters.addEventListener("submit", (event) => event.preventDefault());
	view.more.addEventListener("click", () => { limit += STEP; draw(); });
	view.again.addEventListener("click", again);
	view.resolve.addEventListener("click", () => resolve([...chosen.values()], again));
	return { root: view.root, load, draw, search: view.text };
}

// ---- Resolve ----

function details(pairs) {
	const list = h("dl", { className: "facts-list" });
	for (const [name, value, className = ""] of pairs) list.append(h("dt", {}, name), h("dd", { className }, value));
	return list;
}

/** Asks for a decision on orphans and carries it out. Calls `done` when the list may have changed. */
function resolve(targets, done) {
	const view = template("t-resolve"), dialog = view.root.firstElementChild, one = targets.length === 1 ? targets[0] : null;
	const opener = document.activeElement;
	let acted = false;
	view.title.textContent = one ? "Decide an unknown outcome" : `Decide ${number(targets.length)} unknown outcomes`;
	if (one) {
		const query = `scope=${encoded(one.scope)}&key=${encoded(one.key)}&token=${one.token}`;
		const checkpoint = one.checkpointBytes ? h("a", { href: `${API}orphans/checkpoint?${query}`, download: "" }, `${bytes(one.checkpointBytes)}, download`) : "none";
		view.what.append(details([["Scope", one.scope || "none", "mono"], ["Key", one.key, "mono"], ["Attempt", number(one.attempt)], ["Since", moment(one.sinceMs)], ["Age", duration(one.ageMs)], ["Checkpoint", checkpoint], ["Token", one.token, "mono"]]));
	} else {
		view.what.append(h("details", {}, h("summary", {}, "Which ones"), h("ul", { className: "results mono" }, ...targets.map((target) => h("li", {}, label(target))))));
	}
	const wanted = one ? tail(one.token) : String(targets.length);
	view.confirmLabel.textContent = one ? `To confirm, type the last four characters of the token: ${wanted}` : `To confirm, type the number of orphans: ${wanted}`;
	const choice = () => view.form.elements.choice.value;
	const lines = () => view.headers.value.split("\n").map((line) => line.trim()).filter(Boolean).map((line) => { const at = line.indexOf(":"); return at < 1 ? null : [line.slice(0, at).trim(), line.slice(at + 1).trim()]; });
	const look = () => {
		const way = choice();
		view.response.hidden = way !== "complete";
		view.signed.hidden = way === "leave";
		view.submit.textContent = { release: one ? "Release it" : `Release ${targets.length}`, complete: one ? "Complete it" : `Complete ${targets.length}`, leave: "Leave it" }[way] ?? "Resolve";
		const isJson = lines().some((line) => line && line[0].toLowerCase() === "content-type" && /json/i.test(line[1]));
		let verdict = "";
		if (isJson) {
			try { JSON.parse(view.body.value); verdict = "The body is JSON."; } catch (error) { verdict = `The body is not JSON: ${error.message}`; }
		}
		view.json.className = verdict.includes("not JSON") ? "error" : "hint";
		say(view.json, verdict);
		say(view.preview, `HTTP/1.1 ${view.status.value}\n${view.headers.value.trim()}\n\n${view.body.value}`);
	};
	view.form.addEventListener("input", look);
	look();
	const check = () => {
		const problems = [];
		const must = (ok, input, place, text) => {
			say(place, ok ? "" : text);
			ok ? input.removeAttribute("aria-invalid") : input.setAttribute("aria-invalid", "true");
			if (!ok) problems.push(input);
		};
		const way = choice();
		say(view.choiceError, way ? "" : "Choose what happened.");
		if (!way) problems.push(view.form.elements.choice[0]);
		if (way === "complete") {
			must(/^[2-5]\d\d$/.test(view.status.value), view.status, view.statusError, "200 to 599.");
			must(lines().every((line) => line && /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(line[0])), view.headers, view.headersError, "Write “name: value”.");
		}
		if (way !== "leave") {
			const reason = view.reason.value.trim().length;
			must(reason >= 3 && reason <= 500, view.reason, view.reasonError, "3 to 500 characters.");
			must(view.confirm.value.trim().toLowerCase() === wanted.toLowerCase(), view.confirm, view.confirmError, `Type ${wanted}.`);
		}
		problems[0]?.focus();
		return problems.length === 0;
	};
	const result = (target, level, text) => h("li", { className: level }, h("b", {}, text), " " + label(target));
	const act = async () => {
		const way = choice(), reason = view.reason.value.trim();
		const response = way === "complete" ? { status: Number(view.status.value), headers: lines(), body: view.body.value } : {};
		const order = (target) => ({ scope: target.scope, key: target.key, token: target.token, reason, confirm: tail(target.token), ...response });
		const won = way === "release" ? "Released: the next retry runs." : "Completed: retries get the response.";
		const lost = "Another operator was first.";
		if (one) {
			try { await api(`orphans/${way}`, { method: "POST", body: order(one) }); return [result(one, "ok", won)]; } catch (error) {
				if (error.status !== 409) throw error;
				return [result(one, "warn", lost)];
			}
		}
		const answers = await api("orphans/resolve", { method: "POST", body: targets.map((target) => ({ action: way, ...order(target) })) });
		return targets.map((target, i) => {
			const { error, code } = answers[i];
			return error ? result(target, code === "conflict" ? "warn" : "bad", code === "conflict" ? lost : error) : result(target, "ok", won);
		});
	};
	view.form.addEventListener("submit", async (event) => {
		event.preventDefault();
		if (acted) return dialog.close();
		if (!check()) return;
		if (choice() === "leave") return dialog.close();
		view.submit.disabled = true;
		try {
			const results = await act();
			acted = true;
			view.questions.hidden = true;
			view.cancel.hidden = true;
			view.submit.textContent = "Close";
			view.results.replaceChildren(h("ul", { className: "results" }, ...results));
			done();
		} catch (error) {
			if (error.status === 401) return login("Your session is over. Log in again.");
			view.results.replaceChildren(h("p", { className: "error" }, error.status ? `Refused: ${error.message}` : `No answer: ${error.message}. The change may be done; check the list.`));
			done();
		} finally {
			view.submit.disabled = false;
		}
		if (acted) view.submit.focus();
	});
	view.cancel.addEventListener("click", () => dialog.close());
	dialog.addEventListener("close", () => {
		dialog.remove();
		opener?.isConnected ? opener.focus() : main()?.focus();
	});
	open(dialog);
	view.title.focus();
}
function open(dialog) {
	document.body.append(dialog);
	dialog.showModal();
}

// ---- Look up ----

const ABSENT = "No operation with this key is known: a request with it would run now.";
const STATES = { absent: "Absent", inFlight: "In flight", orphaned: "Outcome unknown", completed: "Completed" };

function lookup(query) {
	const view = template("t-lookup");
	const find = async () => {
		view.error.textContent = "";
		view.key.removeAttribute("aria-invalid");
		const scope = encoded(view.scope.value), key = encoded(view.key.value);
		const fail = (text) => { view.error.textContent = text; view.result.hidden = true; view.key.setAttribute("aria-invalid", "true"); view.key.focus(); };
		if (!key) return fail("Enter a key.");
		const where = `scope=${scope}&key=${key}`;
		try {
			view.result.replaceChildren(...found(await api(`keys?${where}`), where, find));
			view.result.hidden = false;
		} catch (error) {
			if (error.status === 401) return login("Your session is over. Log in again.");
			fail(error.status ? error.message : "The server does not answer.");
		}
	};
	view.form.addEventListener("submit", (event) => { event.preventDefault(); find(); });
	if (query.get("key")) {
		view.scope.value = query.get("scope") ?? "";
		view.key.value = query.get("key");
		find();
	}
	return { root: view.root, search: view.key };
}

function found(answer, where, again) {
	const heading = h("h2", {}, STATES[answer.state] ?? answer.state);
	const now = Date.now();
	if (answer.state === "absent") return [heading, h("p", {}, ABSENT)];
	if (answer.state === "inFlight") return [heading, h("p", {}, "The operation runs. A request with this key is refused as locked until it ends."), details([["Attempt", number(answer.attempt)], ["Running for", duration(answer.runningForMs)]])];
	if (answer.state === "orphaned") {
		const parts = [heading, h("p", {}, "The process died or the handler failed. A request with this key is refused until an operator decides."), details([["Attempt", number(answer.attempt)], ["Since", moment(answer.sinceMs)], ["Age", duration(answer.ageMs)], ["Checkpoint", answer.checkpointBytes ? bytes(answer.checkpointBytes) : "none"], ["Token", answer.token, "mono"]])];
		if (operator()) {
			const button = h("button", { className: "primary", type: "button" }, "Decide");
			button.addEventListener("click", () => resolve([answer], again));
			parts.push(h("p", { className: "actions" }, button));
		}
		return parts;
	}
	const response = answer.response;
	const parts = [heading, h("p", {}, response ? "A request with this key gets the stored response." : "The operation ran; its response was not stored. A request with this key is refused and never runs again.")];
	parts.push(details([["Status", response?.status == null ? response?.error ?? "–" : String(response.status)], ["Body", response ? bytes(response.bodyBytes) : "–"], ["Completed", moment(answer.completedAtMs)], ["Expires", moment(answer.expiresAtMs)], ["Expires in", duration(Math.max(0, answer.expiresAtMs - now))], ["Token", answer.token, "mono"]]));
	if (response && operator() && state.info.showResponses) parts.push(h("p", { className: "actions" }, h("a", { className: "button", href: `${API}keys/response?${where}`, download: "" }, "Download the body")));
	return parts;
}

// ---- Store ----

const UPKEEP = [
	{ id: "fold", name: "Fold", text: "Moves the journal's records into the record files. Harmless; the store does it by itself." },
	{ id: "sweep", name: "Sweep", text: "Frees the space of expired records. Harmless; the store does it by itself." },
	{ id: "reopen", name: "Reopen", text: "After a failure: opens the store again. Find the cause first. What runs is unknown until it ends." },
];

function confirmed(title, text, word) {
	return new Promise((done) => {
		const view = template("t-confirm"), dialog = view.root.firstElementChild, opener = document.activeElement;
		view.title.textContent = title;
		view.text.textContent = text;
		view.yes.textContent = word;
		let yes = false;
		view.form.addEventListener("submit", () => { yes = true; });
		view.no.addEventListener("click", () => dialog.close());
		dialog.addEventListener("close", () => { dialog.remove(); opener?.focus(); done(yes); });
		open(dialog);
	});
}

function store() {
	const view = template("t-store");
	let buckets = null;
	const plot = new Plot(view, "Records by the end of their bucket", (width, height, left, at) => {
		const bars = buckets ?? [], top = ceiling(Math.max(0, ...bars.map((bar) => bar.records)));
		const { svg, y } = axes(width, height, left, top, (n) => short.format(n));
		const each = (width - left - 6) / Math.max(1, bars.length), when = (bar) => `${day(new Date(bar.endMs)).slice(5)} ${clock(new Date(bar.endMs), false)}`;
		bars.forEach((bar, i) => svg.append(s("rect", { x: (left + i * each + each * 0.12).toFixed(1), width: Math.max(1, each * 0.76).toFixed(1), y: y(bar.records).toFixed(1), height: Math.max(0, height - 22 - y(bar.records)).toFixed(1), rx: 2, class: i === at ? "f-replay" : "f-run" })));
		const ticks = Math.min(bars.length, width < 420 ? 2 : 5);
		for (const tick of range(ticks)) {
			const i = ticks === 1 ? 0 : Math.round((tick / (ticks - 1)) * (bars.length - 1));
			svg.append(s("text", { class: "axis", x: left + (i + 0.5) * each, y: height - 5, "text-anchor": ticks > 1 && tick === ticks - 1 ? "end" : tick === 0 ? "start" : "middle" }, when(bars[i])));
		}
		const words = (i) => `until ${when(bars[i])}  ·  ${plural(bars[i].records, "record")}  ·  ${bytes(bars[i].bytes)}`;
		return { svg, count: bars.length, words, head: ["Until", "Records", "Bytes"], table: () => bars.map((bar) => [when(bar), number(bar.records), bytes(bar.bytes)]) };
	});
	view.actions.hidden = !operator();
	for (const action of UPKEEP) {
		const button = h("button", { type: "button" }, action.name), note = h("span", {}, action.text);
		button.addEventListener("click", async () => {
			if (!(await confirmed(`${action.name} the store?`, action.text, action.name))) return;
			button.disabled = true;
			try { await api(action.id, { method: "POST", body: {} }); say(note, "Done."); } catch (error) { say(note, `Refused: ${error.message}`); }
			button.disabled = false;
			button.focus();
			announce(`${action.name}: ${note.textContent}`);
			poll();
		});
		view.list.append(h("li", {}, button, note));
	}
	const load = async () => {
		// Not every kind of store has buckets.
		buckets = await api("expiry").catch((error) => { if ([404, 501].includes(error.status)) return null; throw error; });
	};
	const draw = () => {
		const engine = state.stats?.engine;
		if (!engine) return;
		tiles(view.tiles, [
			{ name: "Records", value: number(engine.foldedRecords), more: `in ${plural(engine.runs, "run")}` },
			{ name: "On disk", value: bytes(engine.storeBytes), more: "journal included" },
			{ name: "Not yet folded", value: bytes(engine.recentBytes), more: "in memory and journal" },
			{ name: "Folds", value: number(engine.folds), more: "since the start" },
			{ name: "Swept", value: number(engine.swept), more: "expired records" },
			{ name: "Open", value: bytes(engine.openBytes), more: "in flight and unknown" },
			{ name: "Failures", value: number(engine.failures), more: engine.failures ? "see the log" : "none" },
			{ name: "Full", value: engine.full ? "yes" : "no", more: engine.full ? "new keys are refused" : "takes new keys" },
		]);
		view.figure.hidden = !buckets?.length;
		if (buckets) plot.refresh();
	};
	draw();
	return { root: view.root, load, draw };
}

// ---- Backups ----

function backups() {
	const view = template("t-backups"), may = operator(), running = new Map();
	let listed = null, missing = null;
	const now = new Date();
	view.form.hidden = !may;
	view.name.value = `${day(now)}T${two(now.getHours())}${two(now.getMinutes())}`;
	if (may) view.head.append(h("th", { scope: "col" }, h("span", { className: "sr" }, "Action")));
	roles(view.rows.parentElement);
	const load = async () => {
		try {
			listed = (await api("backups")).backups;
			missing = null;
		} catch (error) {
			if (error.status !== 404) throw error;
			[listed, missing] = [[], error.message];
		}
		for (const [id, job] of running) if (!job.over) Object.assign(job, await api(`jobs/${id}`));
	};
	const track = (what, answer) => {
		running.set(answer.job, { what, state: "running" });
		poll();
	};
	const verify = async (name, button) => {
		button.disabled = true;
		try { track(`Verifying ${name}`, await api(`backups/${encodeURIComponent(name)}/verify`, { method: "POST", body: {} })); } catch (error) { announce(error.message); view.error.textContent = error.message; }
		button.disabled = false;
	};
	view.form.addEventListener("submit", async (event) => {
		event.preventDefault();
		view.error.textContent = "";
		try { track(`Backup ${view.name.value}`, await api("backups", { method: "POST", body: { name: view.name.value.trim() } })); } catch (error) { view.error.textContent = error.message; view.name.focus(); }
	});
	const make = (backup) => {
		const row = h("tr", { role: "row" }, cell("Name", "mono key"), cell("Taken", "nowrap"), cell("Size", "num"), cell("Verified"));
		say(row.children[0], backup.name);
		if (may) {
			const button = h("button", { type: "button", ariaLabel: `Verify ${backup.name}` }, "Verify");
			button.addEventListener("click", () => verify(backup.name, button));
			row.append(h("td", { role: "cell" }, button));
		}
		return row;
	};
	const draw = () => {
		if (!listed) return;
		patch(view.rows, listed, (backup) => backup.name, make, (row, backup) => {
			if (!row.children[1].firstChild) row.children[1].append(moment(backup.createdMs));
			say(row.children[2], bytes(backup.bytes));
			say(row.children[3], verifiedWord(backup));
		});
		patch(view.jobs, [...running], ([id]) => id, () => h("p", { className: "note" }), (line, [, job]) => {
			job.over = job.state !== "running";
			say(line, jobWord(job));
			line.className = job.state === "failed" ? "error" : "note";
		});
		view.scroll.hidden = !listed.length;
		view.empty.hidden = !!listed.length;
		if (missing) { view.form.hidden = true; say(view.emptyWord, "Backups are not set up."); say(view.emptyWhy, "Set their directory: backups in [admin] of the configuration."); }
	};
	return { root: view.root, load, draw };
}
function verifiedWord({ whole, verified }) {
	if (!whole) return "unfinished";
	if (!verified) return "not since the start";
	if (verified.state === "failed") return `failed: ${verified.error}`;
	const { records, damage } = verified.result;
	return damage.length ? `damaged: ${plural(damage.length, "record")}` : `sound, ${plural(records, "record")}`;
}
function jobWord({ what, kind, state: word, error }) {
	if (word === "failed") return `${what}: failed. ${error}`;
	if (word !== "running") return `${what}: done.`;
	const { backupBytes: all, backupBytesCopied: copied } = state.stats?.engine ?? {};
	return `${what}: running${kind === "backup" && all ? `, ${Math.floor((100 * copied) / all)} %` : ""} …`;
}

// ---- About ----

function about() {
	const view = template("t-about"), info = state.info;
	const pairs = [["Version", info.version ?? "–"], ["Process", info.pid == null ? "–" : String(info.pid), "mono"], ["Started", moment(info.startedMs)], ["Store", info.store ?? "–", "mono"], ["You are", `${info.role}${info.readOnly ? ", and this server is read-only" : ""}`]];
	view.facts.append(...details(pairs).childNodes);
	const contract = typeof info.contract === "object" && info.contract ? info.contract : { name: info.contract };
	const headers = contract.headers?.join(" or ") ?? "Idempotency-Key";
	const codes = { locked: 409, mismatch: 409, unknown: 409, notStored: 409, ...contract.statuses };
	say(view.contractLead, `${contract.name ? `Contract “${contract.name}”. ` : ""}A client sends ${headers} with each request that must run once, and repeats key and bytes on every retry.`);
	const rows = [
		["The first request with a key", "its response", "it is stored before its first byte is sent"],
		["The same request again", "the stored response", "done: it never changes"],
		["The first still runs", `${codes.locked} idempotency_key_locked`, "wait retryAfterMs, then repeat it"],
		["The key belongs to another request", `${codes.mismatch} idempotency_key_mismatch`, "stop: a bug in the client"],
		["An earlier attempt died", `${codes.unknown} idempotency_outcome_unknown`, "stop: look the operation up; an operator decides here"],
		["It ran, and the response was too long to store", `${codes.notStored} idempotency_response_not_stored`, "stop: it was executed; fetch the result"],
		["The key is malformed or sent twice", "400 idempotency_key_invalid", "stop: a bug in the client"],
		["The store cannot take the key", "503 idempotency_store_unavailable", "wait Retry-After, then repeat it"],
		["401, 425 or 429 from the application", "that response", "the key is free: repeat it later"],
	];
	for (const row of rows) view.contract.append(h("tr", { role: "row" }, ...["When", "Answer", "Then"].map((name, i) => { const at = cell(name); at.textContent = row[i]; return at; })));
	roles(view.contract.parentElement);
	const load = async () => {
		if (info.role !== "operator" || view.config.textContent) return;
		let config = null;
		try { config = await api("config"); } catch (error) { if (!error.status || error.status === 401) throw error; return; }
		view.config.textContent = config?.toml ?? JSON.stringify(config, null, 2);
		view.configCard.hidden = false;
	};
	return { root: view.root, load };
}

// ---- Keys ----

let prefix = 0;
function help() {
	const view = template("t-help"), dialog = view.root.firstElementChild;
	const row = (keys, text) => view.list.append(h("dt", {}, ...keys.flatMap((key) => [h("kbd", {}, key), " "])), h("dd", {}, text));
	for (const screen of SCREENS) row(["g", screen.key], screen.name);
	row(["/"], "Filter, or the key to look up");
	row(["?"], "This list");
	row(["←", "→"], "Read the values of a chart");
	view.on.checked = remembered("keys", "on") === "on";
	view.on.addEventListener("change", () => remember("keys", view.on.checked ? "on" : "off"));
	dialog.addEventListener("close", () => dialog.remove());
	open(dialog);
}
document.addEventListener("keydown", (event) => {
	if (!state.frame || event.ctrlKey || event.altKey || event.metaKey || remembered("keys", "on") !== "on") return;
	// A checkbox takes no letters, so the page's keys work there.
	if (event.target.closest?.("input:not([type=checkbox]), textarea, select, dialog")) return;
	if (Date.now() - prefix < 1500) {
		const screen = SCREENS.find((one) => one.key === event.key);
		prefix = 0;
		if (screen) { event.preventDefault(); location.hash = `#/${screen.id}`; }
	} else if (event.key === "g") prefix = Date.now();
	else if (event.key === "?") help();
	else if (event.key === "/" && state.screen?.search) { event.preventDefault(); state.screen.search.focus(); }
});

function theme() {
	document.documentElement.dataset.theme = remembered("theme", "auto");
}
theme();
addEventListener("hashchange", show);
addEventListener("online", () => state.frame && poll());
document.addEventListener("visibilitychange", () => { if (!document.hidden && state.frame) poll(); });
start();
