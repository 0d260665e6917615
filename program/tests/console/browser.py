"""What the scripts of the console share: a proxy with its console, and pages of a browser."""
import json, os, subprocess, sys, tempfile, uuid

from rig import BINARY, Flaky, Process, call, check, free_port, has_failed, until, wait_for

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
AXE = os.path.join(os.path.dirname(os.path.abspath(sys.argv[1])), "../console-tests")
try:
    from playwright.sync_api import Error, expect, sync_playwright
    MISSING = None if os.path.exists(CHROMIUM) else f"{CHROMIUM} (apt-get install chromium)"
except ImportError:
    MISSING = "playwright (pip install playwright)"
if MISSING:
    print(f"LEFT OUT: the tests of the console, for want of {MISSING}")
    sys.exit(os.environ.get("ONCEKEY_CONSOLE") == "required")
OPERATOR, VIEWER = "operator-token-of-the-tests", "viewer-token-of-the-tests"

# ---- Processes ----

class Site:
    """An upstream that fails, and a proxy with its console in front of it."""
    def __init__(self, read_only=False, show_responses=True):
        self.dir = tempfile.mkdtemp()
        self.upstream, self.port, self.admin = free_port(), free_port(), free_port()
        self.audit = self.path("audit.ndjson")
        for name, token in ("operator", OPERATOR), ("viewer", VIEWER):
            with open(self.path(name), "w", opener=lambda p, f: os.open(p, f, 0o600)) as file: file.write(token)
        flag = lambda value: str(value).lower()
        with open(self.path("toml"), "w") as file:
            file.write(f'listen = ["127.0.0.1:{self.port}"]\nstore = "{self.path("keys")}"\n[upstream]\nurls = ["http://127.0.0.1:{self.upstream}"]\n'
                f'[policy]\nscope = "header:X-Tenant"\n[log]\naccess = false\n[admin]\nlisten = "127.0.0.1:{self.admin}"\ntoken_file = "{self.path("operator")}"\n'
                f'viewer_token_file = "{self.path("viewer")}"\nread_only = {flag(read_only)}\nshow_responses = {flag(show_responses)}\nbackups = "{self.path("backups")}"\naudit_log = "{self.audit}"\n')
        self.flaky = Flaky(self.upstream)
        self.start()
    def path(self, name): return os.path.join(self.dir, name)
    def start(self):
        self.proxy = Process().start([BINARY, "proxy", "--config", self.path("toml")], self.admin)
        wait_for(self.port, self.proxy.process)
    def kill(self): self.proxy.kill()
    def __enter__(self): return self
    def __exit__(self, *_):
        self.kill()
        self.flaky.kill()
    @property
    def url(self): return f"http://127.0.0.1:{self.admin}/"
    def send(self, path, key, scope="acme", body=b"{}"):
        return call(self.port, "POST", path, key, body, headers={"X-Tenant": scope})
    def orphan(self, key=None, scope="acme", path="/reset"):
        """An orphan, once it is on disk."""
        key = key or f"order-{uuid.uuid4()}"
        self.send(path, key, scope)
        status, _, body = self.send(path, key, scope)
        assert status == 409 and b"idempotency_outcome_unknown" in body, (status, body)
        return key
    def api(self, method, path, body=None, token=OPERATOR, **headers):
        headers = {"Authorization": f"Bearer {token}", **headers}
        status, _, text = call(self.admin, method, "/api/v1/" + path, body=b"" if body is None else json.dumps(body).encode(), headers=headers)
        return status, json.loads(text) if text else None
    def count(self, path): return self.flaky.count(path)
    def audited(self):
        with open(self.audit) as file: return [json.loads(line) for line in file]
    def oncekey(self, *arguments):
        """A command on this store, as a shell runs it: what it printed."""
        run = subprocess.run([BINARY, *arguments, "--store", self.path("keys"), "--json"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
        assert run.returncode == 0, run
        return json.loads(run.stdout)
    def release(self, key, scope="acme"):
        orphan = next(each for each in self.oncekey("orphans")["orphans"] if each["key"] == key)
        self.oncekey("resolve", "release", key, "--scope", scope, "--token", orphan["token"], "--reason", "on the command line", "--yes")

# ---- The browser ----

class Page:
    """A page of a fresh browser, and all that it asked for and complained of."""
    def __init__(self, browser, url, theme="light", width=1180, token=OPERATOR):
        self.url, self.asked, self.said = url, [], []
        self.context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=theme, reduced_motion="reduce")
        self.page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("console", lambda message: self.said.append(message.text) if message.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.add_init_script("addEventListener('securitypolicyviolation', (e) => console.error('CSP', e.violatedDirective, e.blockedURI))")
        self.page.goto(url)
        if token: self.login(token)
    def __enter__(self): return self.page
    def __exit__(self, *_): self.context.close()
    def login(self, token):
        self.page.get_by_label("Token").fill(token)
        self.page.get_by_role("button", name="Log in").click()
        self.page.get_by_role("navigation").wait_for()

def go(page, screen):
    page.evaluate(f"location.hash = '#/{screen}'")
    page.wait_for_selector(f"nav a[href='#/{screen}'][aria-current]")

def row_of(page, key): return page.locator("tbody tr").filter(has=page.get_by_role("link", name=key, exact=True))

def decide(page, key, choice, reason, body=None):
    """Opens the dialog of an orphan and fills it in; the caller confirms."""
    row_of(page, key).get_by_role("button").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("radio", name=choice).check()
    if body is not None: dialog.get_by_role("textbox", name="Body").fill(body)
    dialog.get_by_label("Reason").fill(reason)
    confirm = dialog.get_by_label("To confirm")
    confirm.fill(dialog.locator("label", has_text="To confirm").inner_text()[-4:])
    return dialog

SCREENS = ["overview", "orphans", "lookup", "store", "backups", "about"]
WIDTHS = [1180, 320]
