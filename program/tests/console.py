#!/usr/bin/env python3
"""usage: console.py BINARY [ROW…]            e.g. console.py target/debug/oncekey C3 C9
       console.py BINARY pictures DIRECTORY  takes the pictures of docs/operations.md
Drives the console of `oncekey proxy` in a real browser, a line a check; exit status 1 when one failed.
Needs playwright (pip), /usr/bin/chromium (apt-get), and for C9 axe-core, which npm fetches once;
console.sh sees to all of it. Without the first two it says so and exits with 0, or with 1 when
ONCEKEY_CONSOLE is `required`."""
import http.server, json, os, sys, threading, urllib.parse

sys.dont_write_bytecode = True
for folder in "accept", "console": sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), folder))
from browser import *
from keyboard import c9
from pictures import pictures

def c1(browser):
    with Site() as site:
        site.orphan()
        for _ in range(3): site.send("/orders", "a")
        for theme in "light", "dark":
            for width in WIDTHS:
                it = Page(browser, site.url, theme, width)
                with it as page:
                    wide = []
                    for screen in SCREENS:
                        go(page, screen)
                        page.wait_for_timeout(300)
                        wide += [screen] * (page.evaluate("document.documentElement.scrollWidth > innerWidth"))
                    go(page, "orphans")
                    page.get_by_role("button", name="Resolve").first.click()
                    page.get_by_role("dialog").wait_for()
                    away = [url for url in it.asked if not url.startswith(site.url)]
                    check(f"C1 {theme}, {width} px: nothing leaves the origin", not away, away)
                    check(f"C1 {theme}, {width} px: no error, no report of the policy", not it.said, it.said)
                    check(f"C1 {theme}, {width} px: no screen is wider than the page", not wide, wide)
        status, headers, page = call(site.admin, "GET", "/")
        policy = headers.get("content-security-policy", "")
        check("C1 the policy has no unsafe-*", status == 200 and "default-src 'none'" in policy and "unsafe" not in policy, headers)
        check("C1 the page is not kept", headers.get("cache-control") == "no-store" and headers.get("x-content-type-options") == "nosniff", headers)
        name = page.decode().split('src="')[1].split('"')[0]
        status, headers, _ = call(site.admin, "GET", "/" + name, headers={"Accept-Encoding": "gzip"})
        check("C1 files named by their bytes are kept, and zipped", status == 200 and "immutable" in headers.get("cache-control", "") and headers.get("content-encoding") == "gzip", name, headers)

def c2(browser):
    with Site() as site:
        paths = ["info", "stats", "orphans", "keys?key=k", "keys/list", "series", "expiry", "backups", "jobs/1", "config", "keys/response?key=k", "orphans/checkpoint?key=k", "no/such"]
        seen = {path: call(site.admin, "GET", "/api/v1/" + path)[0] for path in paths}
        seen |= {path: call(site.admin, "POST", "/api/v1/" + path)[0] for path in ("orphans/release", "orphans/complete", "orphans/resolve", "backups", "fold", "sweep", "reopen", "reload", "drain", "session/link")}
        check("C2 without a session everything is 401", set(seen.values()) == {401}, seen)
        it = Page(browser, site.url, token=None)
        with it as page:
            page.get_by_label("Token").wait_for()
            check("C2 the login alone", page.locator("nav, table, dialog").count() == 0 and not [url for url in it.asked if "/api/" in url] and not it.said, it.asked, it.said)
            page.get_by_label("Token").fill("not the token at all")
            page.get_by_role("button", name="Log in").click()
            expect(page.get_by_role("alert")).to_have_text("This token is not known here.")
            it.login(OPERATOR)
            page.get_by_role("button", name="Log out").click()
            page.get_by_label("Token").wait_for()
            check("C2 logged out: the cookie is no session", page.evaluate("fetch('api/v1/info').then((a) => a.status)") == 401)
            page.reload()
            page.get_by_label("Token").wait_for()

def c3(browser):
    with Site() as site:
        done, free, left = (site.orphan() for _ in range(3))
        with Page(browser, site.url) as page:
            check("C3 the title counts them", until(page.title, lambda title: title.startswith("(3)")).startswith("(3)"), page.title())
            go(page, "orphans")
            page.locator("tbody tr").nth(2).wait_for()
            dialog = decide(page, done, "It happened", "INC-1: the provider has it", '{"id":7}')
            expect(dialog).to_contain_text("The body is JSON.")
            dialog.get_by_role("button", name="Complete it").click()
            expect(dialog).to_contain_text("Completed: retries get the response.")
            dialog.get_by_role("button", name="Close").click()
            expect(row_of(page, done)).to_have_count(0)
            before = site.count("/reset")
            status, headers, body = site.send("/reset", done)
            check("C3 the retry of the completed one gets 201 and these bytes", (status, body) == (201, b'{"id":7}') and headers.get("content-type") == "application/json" and site.count("/reset") == before, status, body)
            dialog = decide(page, free, "It did not happen", "INC-2: never charged")
            dialog.get_by_role("button", name="Release it").click()
            expect(dialog).to_contain_text("Released: the next retry runs.")
            dialog.get_by_role("button", name="Close").click()
            site.send("/reset", free)
            check("C3 the retry of the released one runs", site.count("/reset") == before + 1)
            status, _, body = site.send("/reset", left)
            check("C3 the third stands", status == 409, status, body)
            page.get_by_role("button", name=f"Resolve {left}").click()
            dialog = page.get_by_role("dialog")
            dialog.get_by_role("radio", name="Leave it").check()
            dialog.get_by_role("button", name="Leave it").click()
            expect(page.get_by_role("dialog")).to_have_count(0)
        lines = {(line["action"], line["key"], line["reason"], line["result"]) for line in site.audited()}
        wanted = {(action, key, reason, result) for action, key, reason in (("complete", done, "INC-1: the provider has it"), ("release", free, "INC-2: never charged")) for result in ("asked", "done")}
        check("C3 both are in the audit log, with their reasons", wanted <= lines, lines)

def c4(browser):
    with Site() as site:
        keys = [site.orphan() for _ in range(5)]
        with Page(browser, site.url + "#/orphans") as page:
            page.locator("tbody tr").nth(4).wait_for()
            page.locator("tbody tr").first.get_by_role("button").focus()
            focused = lambda: page.evaluate("document.activeElement.ariaLabel ?? document.activeElement.id")
            decided = focused().removeprefix("Resolve ")
            keys.remove(decided)
            site.release(decided)
            expect(row_of(page, decided)).to_have_count(0)
            check("C4 when its row goes, focus moves to the same button of the next", focused().removeprefix("Resolve ") in keys, focused())
            dialog = decide(page, keys[0], "It did not happen", "INC-3: never charged")
            site.release(keys[0])
            dialog.get_by_role("button", name="Release it").click()
            expect(dialog).to_contain_text("Another operator was first")
            dialog.get_by_role("button", name="Close").click()
            expect(row_of(page, keys[0])).to_have_count(0)
            check("C4 the dialog says who was first, and the row goes", True)
            # Many at once: each has its own result.
            page.get_by_label("Select all").check()
            page.get_by_role("button", name="Resolve 3 selected").click()
            site.release(keys[1])
            dialog.get_by_role("radio", name="It did not happen").check()
            dialog.get_by_label("Reason").fill("INC-4: the provider was down")
            dialog.get_by_role("button", name="Release 3").click()
            check("C4 without its number nothing is done", site.api("GET", "orphans")[1]["total"] == 2 and dialog.get_by_text("Type 3.").is_visible())
            dialog.get_by_label("To confirm").fill("3")
            dialog.get_by_role("button", name="Release 3").click()
            expect(dialog.locator("li.warn", has_text=keys[1])).to_contain_text("Another operator was first")
            expect(dialog.get_by_text("Released: the next retry runs.")).to_have_count(2)
            dialog.get_by_role("button", name="Close").click()
            page.get_by_text("Nothing is unresolved.").wait_for()
            check("C4 many at once: a result for each", site.api("GET", "orphans")[1]["total"] == 0)

POST = """async ([path, body, headers]) => (await fetch(path, {method: 'POST', body, headers})).status"""

def c5(browser):
    body = '{"key":"k","token":"t","reason":"because","confirm":"t"}'
    for name, read_only, token in ("viewer", False, VIEWER), ("read-only", True, OPERATOR):
        with Site(read_only=read_only) as site:
            key = site.orphan()
            with Page(browser, site.url, token=token) as page:
                acting = []
                for screen in SCREENS:
                    go(page, screen)
                    page.wait_for_timeout(300)
                    acting += [text for text in page.locator("main button:visible, main input[type=checkbox]:visible").all_inner_texts() if text not in ("15 min", "24 h", "Pause", "as table", "Look up", "Refresh")]
                check(f"C5 {name}: nothing to press that changes something", not acting, acting)
                csrf = page.evaluate("fetch('api/v1/info').then((a) => a.json()).then((info) => info.csrf)")
                status = page.evaluate(POST, ["api/v1/orphans/release", body, {"Content-Type": "application/json", "Oncekey-Csrf": csrf}])
                check(f"C5 {name}: asked for all the same, 403", status == 403 and site.api("GET", "orphans")[1]["total"] == 1, status)
                go(page, "orphans")
                row_of(page, key).wait_for()
                check(f"C5 {name}: it sees them", True)

class Other(http.server.ThreadingHTTPServer):
    """Another origin: serves a page, or hands requests below a prefix on to the console, without the prefix."""
    daemon_threads = True
    def __init__(self, to=None, prefix="/ops/oncekey"):
        other = self
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            def log_message(self, *_): pass
            def answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if to is None: status, headers, text = 200, {"content-type": "text/html"}, b"<!doctype html><title>other</title>"
                elif self.path.startswith(prefix + "/"):
                    headers = {name: value for name, value in self.headers.items() if name.lower() not in ("connection", "content-length")}
                    status, headers, text = call(to, self.command, self.path[len(prefix):], body=body, headers=headers)
                else: status, headers, text = 404, {}, b""
                other.paths.append((self.command, self.path))
                self.send_response(status or 502)
                for name, value in headers.items():
                    if name not in ("connection", "content-length", "transfer-encoding"): self.send_header(name, value)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)
            do_GET = do_POST = do_DELETE = answer
        super().__init__(("127.0.0.1", 0), Handler)
        self.paths = []
        threading.Thread(target=self.serve_forever, daemon=True).start()
    @property
    def url(self): return f"http://127.0.0.1:{self.server_port}/"

def c6(browser):
    with Site() as site, Other() as other:
        site.orphan()
        orphan = site.api("GET", "orphans")[1]["orphans"][0]
        body = json.dumps({**orphan, "reason": "because", "confirm": orphan["token"][-4:]})
        it = Page(browser, site.url)
        with it as page:
            csrf = page.evaluate("fetch('api/v1/info').then((a) => a.json()).then((info) => info.csrf)")
            js = {"Content-Type": "application/json"}
            seen = {
                "without Oncekey-Csrf": page.evaluate(POST, ["api/v1/orphans/release", body, js]),
                "with a wrong one": page.evaluate(POST, ["api/v1/orphans/release", body, {**js, "Oncekey-Csrf": csrf[:-1] + "x"}]),
                "as text/plain": page.evaluate(POST, ["api/v1/orphans/release", body, {"Content-Type": "text/plain", "Oncekey-Csrf": csrf}]),
            }
            cookie = "; ".join(f"{each['name']}={each['value']}" for each in it.context.cookies(site.url + "api/v1/info"))
            for name, headers in ("from another site", {"Sec-Fetch-Site": "cross-site"}), ("from another port", {"Sec-Fetch-Site": "same-site"}):
                seen[name] = call(site.admin, "POST", "/api/v1/orphans/release", body=body.encode(), headers={"Cookie": cookie, "Content-Type": "application/json", "Oncekey-Csrf": csrf, **headers})[0]
            check("C6 refused with 403", bool(cookie) and set(seen.values()) == {403}, cookie, seen)
            page.goto(other.url)
            sent = page.evaluate("""async ([url, body, csrf]) => {
                const tries = [{'Content-Type': 'text/plain'}, {'Content-Type': 'application/json', 'Oncekey-Csrf': csrf}];
                return Promise.all(tries.map((headers) => fetch(url, {method: 'POST', body, headers, credentials: 'include'}).then((a) => a.status, () => 'no answer for it')));
            }""", [site.url + "api/v1/orphans/release", body, csrf])
            check("C6 a page of another origin gets no answer", set(sent) == {"no answer for it"}, sent)
            check("C6 nothing changed", site.api("GET", "orphans")[1]["total"] == 1)
            check("C6 the cookie is the server's alone", all(each["httpOnly"] and each["sameSite"] == "Strict" for each in it.context.cookies(site.url + "api/v1/info")))
        for path in "/", "/api/v1/info":
            status = call(site.admin, "GET", path, headers={"Host": "evil.example", "Authorization": f"Bearer {OPERATOR}"})[0]
            check(f"C6 {path} for Host: evil.example is 421", status == 421, status)

def c7(browser):
    hostile = ["<img src=x onerror=alert(1)>", "a%41b", "k" * 255, "'\"&amp;</td>", "\u00e4\u00f6".encode().decode("latin-1"), bytes(range(0x80, 0x100)).decode("latin-1"), "".join(map(chr, range(0x21, 0x7f)))]
    shown = lambda key: "".join(c if "!" <= c <= "~" and c != "%" else f"%{ord(c):02X}" for c in key)
    with Site() as site:
        for key in hostile: site.orphan(key, scope="t 1/\u00e9")
        it = Page(browser, site.url + "#/orphans")
        with it as page:
            page.on("dialog", lambda dialog: it.said.append("a dialog of the page: " + dialog.message))
            page.locator(f"tbody tr:nth-child({len(hostile)})").wait_for()
            cells = page.locator("td.key").all_inner_texts()
            check("C7 keys are shown percent-encoded", sorted(cells) == sorted(map(shown, hostile)), cells)
            check("C7 nothing of them became markup", page.locator("main img, main script").count() == 0)
            for key in hostile:
                dialog = decide(page, shown(key), "It did not happen", "<b>why</b> not")
                dialog.get_by_role("button", name="Release it").click()
                expect(dialog).to_contain_text("Released: the next retry runs.")
                dialog.get_by_role("button", name="Close").click()
            page.get_by_text("Nothing is unresolved.").wait_for()
            check("C7 all are resolvable", site.api("GET", "orphans")[1]["total"] == 0)
            # Every byte, through the look-up.
            go(page, "lookup")
            for typed, bytes_ in ("a b", b"a b"), ("\u00e4", "\u00e4".encode()), ("".join(f"%{b:02X}" for b in range(128)), bytes(range(128))), ("".join(f"%{b:02X}" for b in range(128, 256)), bytes(range(128, 256))), ("100%", b"100%"):
                with page.expect_request(lambda request: "/keys?" in request.url) as asked:
                    page.get_by_label("Key", exact=True).fill(typed)
                    page.get_by_role("button", name="Look up").click()
                query = urllib.parse.urlsplit(asked.value.url).query.split("key=")[1]
                check(f"C7 {typed[:12]!r} asks for its bytes", urllib.parse.unquote_to_bytes(query) == bytes_, query)
                page.get_by_text("a request with it would run now").wait_for()
            check("C7 no dialog, no error", not it.said, it.said)

def c8(browser):
    many = 10_000
    with Site() as site:
        def work(n):
            connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=60)
            for i in range(n, many, 8):
                connection.request("POST", "/unknown", b"{}", {"Idempotency-Key": f"order-{i:05}", "X-Tenant": f"tenant-{i % 7}"})
                connection.getresponse().read()
        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        until(lambda: site.api("GET", "orphans?limit=0")[1]["total"], lambda total: total == many)
        with Page(browser, site.url) as page:
            page.evaluate("""() => { window.tasks = []; new PerformanceObserver((list) => tasks.push(...list.getEntries().map((entry) => entry.duration))).observe({type: 'longtask', buffered: true}); }""")
            took = page.evaluate("""() => new Promise((done) => {
                const began = performance.now();
                location.hash = '#/orphans';
                const look = () => (document.querySelectorAll('tbody tr').length >= 100 || performance.now() - began > 60_000 ? done(performance.now() - began) : requestAnimationFrame(look));
                look();
            })""")
            expect(page.get_by_role("heading", level=1)).to_contain_text("200 shown, 10,000 in all")
            page.get_by_label("Text").fill("order-09")
            expect(page.get_by_role("heading", level=1)).to_contain_text("1,000 that match")
            page.get_by_label("Scope").fill("tenant-3")
            expect(page.locator("tbody tr").first).to_contain_text("tenant-3")
            page.get_by_label("Text").fill("order-09876")
            page.get_by_label("Scope").fill("")
            expect(page.locator("tbody tr")).to_have_count(1)
            longest = max(page.evaluate("tasks") or [0])
            # Figures for the reader: a machine may be slow, and no test fails for that.
            check(f"C8 10,000 orphans are listed and filtered (first rows after {took:.0f} ms, longest task {longest:.0f} ms)", True)

def c10(browser):
    with Site() as site, Other(to=site.admin) as other:
        key = site.orphan()
        site.send("/orders", "done")
        it = Page(browser, other.url + "ops/oncekey/")
        with it as page:
            for screen in SCREENS:
                go(page, screen)
                page.wait_for_timeout(200)
            go(page, "orphans")
            dialog = decide(page, key, "It did not happen", "INC-6: behind a prefix")
            dialog.get_by_role("button", name="Release it").click()
            expect(dialog).to_contain_text("Released: the next retry runs.")
            dialog.get_by_role("button", name="Close").click()
            page.evaluate("location.hash = '#/lookup?scope=acme&key=done'")
            with page.expect_download() as download: page.get_by_role("link", name="Download the body").click()
            with open(download.value.path(), "rb") as file: body = file.read()
            check("C10 the stored body is downloaded", body == site.send("/orders", "done")[2], body)
            outside = [path for _, path in other.paths if not path.startswith("/ops/oncekey/")]
            check("C10 everything stays below the prefix", not outside and not it.said, outside, it.said)

def c11(browser):
    with Site() as site:
        site.send("/orders", "a")
        # Lost before the first figures.
        it = Page(browser, site.url, token=None)
        with it as page:
            page.route("**/api/v1/stats", lambda route: route.abort())
            it.login(OPERATOR)
            expect(page.locator(".lost")).to_be_visible()
            expect(page.locator(".verdict")).to_contain_text("No connection")
            check("C11 a connection is lost before the first figures", True)
        it = Page(browser, site.url)
        with it as page:
            bar = page.locator(".lost")
            expect(bar).to_be_hidden()
            expect(page.locator(".tiles div").first).to_be_visible()
            site.kill()
            expect(bar).to_be_visible(timeout=30_000)
            expect(bar).to_contain_text("Connection lost since")
            check("C11 a bar tells of a lost connection", page.locator(".verdict").inner_text().startswith("No connection"))
            site.start()
            page.get_by_label("Token").wait_for(timeout=60_000)
            expect(page.locator("form")).to_contain_text("Your session is over")
            it.login(OPERATOR)
            site.send("/orders", "b")
            expect(page.locator(".tiles div", has_text="Executed").locator("dd").first).to_have_text("1")
            check("C11 back again: it asks for the token, and the figures go on", True)

def c12(browser):
    with Site() as site:
        stop = threading.Event()
        def load(n):
            i = 0
            while not stop.is_set():
                i += 1
                site.send("/orders", f"{n}-{i // 2}")
        threads = [threading.Thread(target=load, args=(n,)) for n in range(3)]
        for thread in threads: thread.start()
        try:
            with Page(browser, site.url) as page:
                tile = lambda name: int(page.locator(".tiles div").filter(has=page.get_by_text(name, exact=True)).locator("dd").first.inner_text().replace(",", ""))
                until(lambda: page.locator(".tiles div").count(), lambda tiles: tiles)
                for _ in range(3):
                    with page.expect_response(lambda answer: answer.url.endswith("/api/v1/stats")) as answer: before = site.oncekey("stats")["engine"]
                    sent = answer.value.json()["engine"]
                    after = site.oncekey("stats")["engine"]
                    seen = until(lambda: {"claimed": tile("Executed"), "replayed": tile("Replayed")}, lambda seen: all(seen[name] == sent[name] for name in seen))
                    check("C12 under load the figures are those of `oncekey stats`", all(before[name] <= seen[name] <= after[name] and seen[name] == sent[name] for name in seen), before, seen, after)
        finally:
            stop.set()
            for thread in threads: thread.join()

ROWS = {"C1": c1, "C2": c2, "C3": c3, "C4": c4, "C5": c5, "C6": c6, "C7": c7, "C8": c8, "C9": c9, "C10": c10, "C11": c11, "C12": c12}
with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
    if sys.argv[2:3] == ["pictures"]: pictures(browser, sys.argv[3])
    else:
        for row in sys.argv[2:] or ROWS:
            try: ROWS[row](browser)
            except (Error, AssertionError) as error: check(f"{row} runs to its end", False, error)
    browser.close()
sys.exit(has_failed())
