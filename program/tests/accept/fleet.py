"""Rows about two proxies that share a PostgreSQL; left out, in words, where there is none."""
from rig import *
import glob, re, shutil

class Cluster:
    """A PostgreSQL of the row's own, in a temporary directory, as a user without rights."""
    def __init__(self, programs):
        self.dir = tempfile.mkdtemp(); os.chmod(self.dir, 0o755); self.port = free_port(); data = os.path.join(self.dir, "data")
        self.user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", "--"] if os.geteuid() == 0 else []
        if self.user: shutil.chown(self.dir, "postgres")
        subprocess.run([*self.user, os.path.join(programs, "initdb"), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N", "-D", data], check=True, capture_output=True, cwd=self.dir)
        self.command = [*self.user, os.path.join(programs, "postgres"), "-D", data, "-c", "listen_addresses=127.0.0.1", "-c", f"port={self.port}", "-c", f"unix_socket_directories={self.dir}"]
        self.log = open(os.path.join(self.dir, "log"), "w"); self.url = f"postgres://postgres@127.0.0.1:{self.port}/postgres"; self.starts = 0; self.start()
    def start(self):
        self.process = subprocess.Popen(self.command, cwd=self.dir, stdout=self.log, stderr=self.log); wait_for(self.port, self.process); self.starts += 1
        until(lambda: open(os.path.join(self.dir, "log")).read().count("ready to accept"), lambda n: n == self.starts)
    def stop(self): self.process.send_signal(signal.SIGINT); self.process.wait(60)
    def __enter__(self): return self
    def __exit__(self, *_):
        self.stop(); shutil.rmtree(self.dir, ignore_errors=True)
def cluster():
    found = [d for d in [*glob.glob("/usr/lib/postgresql/*/bin"), *os.environ.get("PATH", "").split(":")] if all(os.path.exists(os.path.join(d, p)) for p in ("postgres", "initdb"))]
    if not found: print("LEFT OUT: PostgreSQL is not installed (Debian: postgresql-15)", flush=True); return None
    return Cluster(found[0])
def sock_of(proxy): return until(lambda: [json.loads(l)["fields"]["message"].removeprefix("control socket ") for l in proxy.lines() if "control socket" in l], bool)[0]
def fleet():
    pg = cluster()
    if pg is None: return
    with pg, Flaky() as up:
        run = subprocess.run([BINARY, "proxy", "--upstream", f"http://127.0.0.1:{up.port}", "--store", pg.url], capture_output=True, text=True)
        check("fleet: without tables: exit 1, says --create", run.returncode == 1 and "--create" in run.stderr, run)
        lease = toml('[postgres]\nlease = "2s"\n'); shared = ("--create", "--config", lease)
        # The host is a part of the fingerprint: clients ask the balancer, under one name.
        ask = lambda proxy, path, k, **more: call(proxy.port, "POST", path, k, headers={"Host": "api.example"}, **more)
        with Proxy([up.port], pg.url, *shared) as one, Proxy([up.port], pg.url, *shared) as two:
            k = new(); a, b = ask(one, "/orders", k), ask(two, "/orders", k)
            check("fleet: first at one, retry at the other: the same bytes", a[0] == b[0] == 201 and a[2] == b[2] and up.count("/orders") == 1, a, b)
            m = ask(two, "/orders", k, body=b"other"); check("fleet: another body at the other: mismatch", m[0] == 409 and code(m) == "idempotency_key_mismatch", m)
            k = new(); out = []; t = threading.Thread(target=lambda: out.append(ask(one, "/slow?ms=3000", k))); t.start(); until(lambda: up.count("/slow"), lambda n: n == 1)
            d = ask(two, "/slow?ms=3000", k); t.join(); check("fleet: a duplicate at the other while the first runs: locked", d[0] == 409 and code(d) == "idempotency_key_locked" and out[0][0] == 201, d, out)
            k = new(); t = threading.Thread(target=ask, args=(one, "/slow?ms=20000", k)); t.start(); until(lambda: up.count("/slow"), lambda n: n == 2); one.kill(); t.join()
            e = ask(two, "/slow?ms=20000", k); check("fleet: its owner is killed: locked at first", e[0] == 409 and code(e) in ("idempotency_key_locked", "idempotency_outcome_unknown"), e)
            f = until(lambda: ask(two, "/slow?ms=20000", k), lambda f: code(f) != "idempotency_key_locked"); check("fleet: after the lease: outcome unknown, ran once", f[0] == 409 and code(f) == "idempotency_outcome_unknown" and up.count("/slow") == 2, f)
            run = lambda *args: (lambda r: (r.returncode, r.stdout + r.stderr))(subprocess.run([BINARY, *args], capture_output=True, text=True))
            stats, other, nobody, ctl = run("stats", "--store", pg.url), run("stats", "--store", pg.url, "--schema", "other"), run("stats", "--store", pg.url.replace("postgres@", "nobody@")), run("ctl", "fold", "--store", pg.url)
            check("fleet: a command counts the orphans of all, and says nothing of the rest", stats[0] == 0 and re.search("orphans +1 ", stats[1]) and "no process has it open" not in stats[1] and "since start" not in stats[1], stats)
            check("fleet: another schema, another role, one process of many: said as such", other[0] == 1 and "schema other" in other[1] and nobody[0] == 1 and "refuses the role or its password" in nobody[1] and ctl[0] == 2 and "--url" in ctl[1], other, nobody, ctl)
            sock = sock_of(two); orphan = {"key": k, **json.loads(over_unix(sock, "GET", f"/api/v1/keys?key={k}")[1])}
            done = over_unix(sock, "POST", "/api/v1/orphans/complete", {**orphan, "reason": "it shipped", "confirm": orphan["token"][-4:], "status": 200, "body": "shipped"})
            g = ask(two, "/slow?ms=20000", k); check("fleet: resolved through the other: the client gets that response", done[0] == 200 and (g[0], g[2]) == (200, b"shipped"), done, g)
            listed = json.loads(over_unix(sock, "GET", "/api/v1/keys/list")[1]); check("fleet: keys are listed", len(listed["keys"]) == 3, listed)
            k = new(); t = threading.Thread(target=ask, args=(two, "/slow?ms=20000", k)); t.start(); until(lambda: up.count("/slow"), lambda n: n == 3); two.kill(); t.join()
            # Before the lease is over the proxy counts as alive, so there is no orphan yet.
            run = until(lambda: subprocess.run([BINARY, "orphans", "--store", pg.url, "--json"], capture_output=True, text=True), lambda run: run.stderr); listed = json.loads(run.stdout or "{}").get("orphans", [])
            check("fleet: nobody is left: a command waits for the lease and lists the orphan", [o["key"] for o in listed] == [k] and "silent beyond its lease" in run.stderr, run)
        # Each of these commands finds the process that died, and no living one.
        for each, (command, tell) in enumerate([(["get", "{k}", "--json"], lambda run: json.loads(run.stdout)["state"] == "orphaned"), (["ls", "--state", "orphaned", "--prefix", "{k}", "--json"], lambda run: len(json.loads(run.stdout)["keys"]) == 1), (["export"], lambda run: any(line["key"] == k and line["state"] == "orphaned" for line in map(json.loads, run.stdout.splitlines()))), (["resolve", "release", "{k}", "--yes", "--reason", "never shipped"], lambda run: run.returncode == 0)]):
            with Proxy([up.port], pg.url, "--create", "--config", toml('[postgres]\nlease = "1s"\n')) as dying:
                k = new(); t = threading.Thread(target=ask, args=(dying, "/slow?ms=20000", k)); t.start(); until(lambda: up.count("/slow"), lambda n: n == 4 + each); dying.kill(); t.join()
                run = until(lambda: subprocess.run([BINARY, *[part.format(k=k) for part in command], "--store", pg.url], capture_output=True, text=True), lambda run: "silent beyond its lease" in run.stderr)
                check(f"fleet: nobody is left: {command[0]} waits for the lease", tell(run), run)
def outage():
    pg = cluster()
    if pg is None: return
    with pg, Flaky() as up, Proxy([up.port], pg.url, "--create", "--admin", f"127.0.0.1:{(admin := free_port())}") as proxy:
        ready = lambda: call(admin, "GET", "/readyz"); slow, out = new(), []; ask = lambda k: call(proxy.port, "POST", "/slow?ms=8000", k, timeout=60)
        t = threading.Thread(target=lambda: out.append(ask(slow))); t.start(); until(lambda: up.count("/slow"), lambda n: n == 1)
        pg.stop(); a = call(proxy.port, "POST", "/orders", new()); b = until(ready, lambda b: b[0] == 503)
        check("outage: the server is gone: 503, not ready; requests without a key go on", (a[0], code(a), b[2]) == (503, "idempotency_store_unavailable", b'{"reason":"store_failed"}') and call(proxy.port, "POST", "/orders")[0] == 201, a, b)
        pg.start(); c = until(ready, lambda c: c[0] == 200); d = until(lambda: call(proxy.port, "POST", "/orders", new()), lambda d: d[0] == 201); check("outage: it is back: ready, new keys run", c[0] == 200 and d[0] == 201, c, d)
        e = ask(slow); check("outage: what runs since before is locked, not an orphan", t.is_alive() and code(e) == "idempotency_key_locked", e); t.join()
        f = ask(slow); check("outage: and stored in the end", out[0][0] == f[0] == 201 and out[0][2] == f[2] and up.count("/slow") == 1, out, f)
ROWS = {"fleet": fleet, "outage": outage}
