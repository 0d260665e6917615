#!/usr/bin/env python3
"""usage: accept.py BINARY [ROW…]    e.g. accept.py target/debug/oncekey A1 A3
Starts flaky.py and `oncekey proxy` for each row of the table in docs/proxy.md and prints a line a
check. Exit status 1 when one failed. Needs python3 alone."""
import os, sys
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "accept"))
from rig import *
import fleet, messages, operators, reach, restarts, stores, telemetry

def a1():
    with Flaky() as up, Proxy([up.port], store()) as proxy:
        run = subprocess.run([sys.executable, os.path.join(HERE, "check.py"), str(proxy.port), str(up.port)], capture_output=True, text=True)
        print(run.stdout, end=""); check("A1 check.py: 24 x ok", run.returncode == 0 and run.stdout.count("ok   ") == 24, run.stderr)
def a2():
    port = free_port(); k = new()
    with Proxy([port], store()) as proxy:
        a = call(proxy.port, "POST", "/orders", k)
        check("A2 upstream down: 502 upstream_unreachable, Retry-After", a[0] == 502 and code(a) == "upstream_unreachable" and a[1].get("retry-after") == "1", a)
        b = call(proxy.port, "POST", "/orders"); check("A2 and without a key the same", b[0] == 502 and code(b) == "upstream_unreachable", b)
        with Flaky(port) as up:
            a = call(proxy.port, "POST", "/orders", k); check("A2 upstream up: the key was free, it runs once", a[0] == 201 and up.count("/orders") == 1, a)
def a3():
    # The port is a part of the authority, which a retry must repeat.
    where, k, port = store(), new(), free_port()
    with Flaky() as up:
        with Proxy([up.port], where, port=port) as proxy:
            t = threading.Thread(target=call, args=(proxy.port, "POST", "/slow?ms=5000", k)); t.start()
            until(lambda: up.count("/slow"), lambda n: n == 1); proxy.kill(); t.join()
        with Proxy([up.port], where, port=port) as proxy:
            a = call(proxy.port, "POST", "/slow?ms=5000", k)
            check("A3 proxy killed: 409 outcome_unknown, ran once", a[0] == 409 and code(a) == "idempotency_outcome_unknown" and up.count("/slow") == 1, a)
            check("A3 the start tells of it", proxy.says("1 keys with unknown outcome"), proxy.said())
def a4():
    k = new()
    with Flaky() as up, Proxy([up.port], store(), "--answer-within", "1s") as proxy:
        go = lambda: call(proxy.port, "POST", "/slow?ms=3000", k)
        a = go(); check("A4 slow upstream: 504 locked, Retry-After, retryAfterMs", a[0] == 504 and code(a) == "idempotency_key_locked" and a[1].get("retry-after") == "1" and json.loads(a[2])["retryAfterMs"] >= 100, a)
        b = go(); check("A4 meanwhile 409 locked", b[0] == 409 and code(b) == "idempotency_key_locked", b)
        c = until(go, lambda c: c[0] != 409); check("A4 then the replay, ran once", c[0] == 201 and up.count("/slow") == 1, c)
def a5():
    k = new()
    with Flaky() as up, Proxy([up.port], store(), "--answer-within", "5s", "--give-up-after", "1s") as proxy:
        a = call(proxy.port, "POST", "/slow?ms=3000", k); check("A5 given up: 504 outcome_unknown", a[0] == 504 and code(a) == "idempotency_outcome_unknown", a)
        b = call(proxy.port, "POST", "/slow?ms=3000", k); check("A5 retry: 409 outcome_unknown", b[0] == 409 and code(b) == "idempotency_outcome_unknown", b)
        c = call(proxy.port, "POST", "/slow?ms=3000"); check("A5 without a key: 504 upstream_timeout", c[0] == 504 and code(c) == "upstream_timeout", c)
def a6():
    k = new()
    with Flaky() as up, Proxy([up.port], store()) as proxy:
        a = call(proxy.port, "POST", "/slow?ms=1000", k, timeout=.2)
        b = until(lambda: call(proxy.port, "POST", "/slow?ms=1000", k), lambda b: b[0] != 409)
        check("A6 client gone: the execution went on, its response waits", a[0] == 0 and b[0] == 201 and up.count("/slow") == 1, a, b)
def a7():
    with tempfile.TemporaryDirectory() as d, Flaky() as up:
        path, port, k = os.path.join(d, "toml"), free_port(), new()
        open(path, "w").write(f'[upstream]\nurls = ["http://127.0.0.1:{up.port}"]\n[policy]\nrecovery = "retry"\n[control]\nlisten = "127.0.0.1:0"\n')
        proxy = Process(); proxy.start([BINARY, "proxy", "--config", path, "--listen", f"127.0.0.1:{port}", "--store", store()], port)
        with proxy:
            a = call(port, "POST", "/checkpoint", k); check("A7 the upstream saves a checkpoint and dies: 502 outcome_unknown", a[0] == 502 and code(a) == "idempotency_outcome_unknown", a)
            b = call(port, "POST", "/checkpoint", k); seen = json.loads(b[2]).get("seen", {})
            check("A7 the second attempt gets it", b[0] == 201 and seen.get("oncekey-attempt") == "2" and seen.get("oncekey-checkpoint") == "Y2hhcmdlZA==", b)
            control = seen["oncekey-control"].split("/", 3); answer = call(int(control[2].split(":")[1]), "PUT", "/" + control[3] + "/checkpoint", body=b"late")
            check("A7 the secret died with the attempt: 409", answer[0] == 409, answer)
def a8():
    with Flaky() as up, Proxy([free_port(), up.port], store()) as proxy:
        answers = [call(proxy.port, "POST", "/orders", new())[0] for _ in range(100)]
        check("A8 one of two upstreams dead: 100 x 201, each once", answers == [201] * 100 and up.count("/orders") == 100, answers)
def echo(c, head):
    if b"upgrade: websocket" in head.lower() and b"connection: upgrade" in head.lower():
        c.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        while more := c.recv(65536): c.sendall(more)
    else: c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain")
def a9():
    with tempfile.TemporaryDirectory() as d:
        path = os.path.join(d, "flaky.py"); text = open(os.path.join(HERE, "flaky.py")).read()
        open(path, "w").write(text.replace('protocol_version = "HTTP/1.1"', 'protocol_version = "HTTP/1.1"; timeout = 2', 1))
        up = Flaky.__new__(Flaky); port = free_port(); up.start([sys.executable, path, str(port)], port)
        with up, Proxy([port], store()) as proxy:
            answers = []
            for _ in range(60): answers.append(call(proxy.port, "POST", "/orders", new())[0]); time.sleep(2.0)
            check("A9 an upstream that closes idle connections after 2 s, a request every 2 s: no orphan", answers == [201] * 60, answers)
def a11():
    size, piece = 1 << 30, b"x" * (1 << 20)
    def handle(c, head):
        left = size - len(head.split(b"\r\n\r\n", 1)[1])
        while left: left -= len(c.recv(min(left, 1 << 20)))
        c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size // len(piece)): c.sendall(piece)
    def rss(): return int([l for l in open(f"/proc/{proxy.process.pid}/status") if l.startswith("VmRSS")][0].split()[1]) >> 10
    with serve(handle) as listener, Proxy([listener.getsockname()[1]], store()) as proxy, socket.create_connection(("127.0.0.1", proxy.port)) as s:
        idle = most = rss(); s.sendall(b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size // len(piece)): s.sendall(piece); most = max(most, rss())
        got = 0
        while got < size and (more := s.recv(1 << 20)): got += len(more); most = max(most, rss())
        check("A11 1 GiB up and down without a key: at most 60 MiB more than idle", got >= size and most - idle < 60, got, idle, most)
def a10():
    listener = serve(echo)
    with listener, Proxy([listener.getsockname()[1]], store()) as proxy:
        ask = "%s /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n%sContent-Length: 0\r\n\r\n"
        with socket.create_connection(("127.0.0.1", proxy.port), 10) as s:
            s.sendall((ask % ("GET", "")).encode()); f = s.makefile("rb")
            line = f.readline()
            while f.readline().strip(): pass
            sizes = [1, 10, 100000]; back = []
            for n in sizes:
                sent = os.urandom(n); threading.Thread(target=s.sendall, args=(sent,)).start(); back.append(f.read(n) == sent)
            check("A10 Upgrade: 101, bytes both ways", b" 101 " in line and all(back), line, back)
        line, out = raw(proxy.port, (ask % ("POST", f"Idempotency-Key: {new()}\r\n")).replace("Connection: ", "Connection: close, "))
        check("A10 Upgrade with a key: an ordinary request", " 200 " in line and out.endswith(b"plain"), line)
    with Flaky() as up, Proxy([up.port], store()) as proxy:
        for key in (None, new()):
            c = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=30)
            c.request("POST", "/sse", b"", {"Idempotency-Key": key} if key else {}); first = c.getresponse().read1()
            check(f"A10 events are sent as they come, {'with' if key else 'without'} a key", first.startswith(b"data: 0") and b"data: 2" not in first, first); c.close()
def a12():
    with Flaky() as up, Proxy([up.port], store()) as proxy:
        out = []; t = threading.Thread(target=lambda: out.append(call(proxy.port, "POST", "/slow?ms=1500", new()))); t.start()
        gone = threading.Thread(target=call, args=(proxy.port, "POST", "/slow?ms=1500", new()), kwargs={"timeout": .7}); gone.start()
        until(lambda: up.count("/slow"), lambda n: n == 2); left = proxy.kill(signal.SIGTERM); t.join(); gone.join()
        check("A12 SIGTERM: what runs ends and is answered, exit 0", left == 0 and out[0][0] == 201, left, out)
        check("A12 also the one whose client is gone", "closed: 2 executed, 0 replayed, 0 left in flight" in proxy.said(), proxy.said())
def a14():
    with tempfile.TemporaryDirectory() as d, Flaky() as up:
        path, port, where = os.path.join(d, "oncekey.toml"), free_port(), store()
        write = lambda ttl, store=where: open(path, "w").write(f'listen = ["127.0.0.1:{port}"]\nstore = "{store}"\n[upstream]\nurls = ["http://127.0.0.1:{up.port}"]\n[policy]\nttl = "{ttl}"\n')
        write("24h"); proxy = Process(); proxy.start([BINARY, "proxy", "--config", path], port)
        with proxy:
            answers, done = [], threading.Event()
            def load():
                while not done.is_set(): answers.append(call(port, "POST", "/orders", new())[0])
            threads = [threading.Thread(target=load) for _ in range(4)]; [t.start() for t in threads]
            write("1s"); proxy.process.send_signal(signal.SIGHUP)
            check("A14 SIGHUP: reloaded", until(proxy.said, lambda s: "was reloaded" in s))
            k = new(); call(port, "POST", "/ttls", k); n = up.count("/ttls")
            until(lambda: (call(port, "POST", "/ttls", k), up.count("/ttls"))[1], lambda now: now > n)
            check("A14 the new ttl is in force: the key is new again", up.count("/ttls") == n + 1)
            write("24h", where + "2"); proxy.process.send_signal(signal.SIGHUP)
            check("A14 another store: refused, with a reason", "a restart is needed to change store" in until(proxy.said, lambda s: "was not reloaded" in s))
            open(path, "w").write("nonsense"); proxy.process.send_signal(signal.SIGHUP)
            check("A14 nonsense: refused with its place", until(proxy.said, lambda s: f"{path}:1:" in s) and proxy.process.poll() is None)
            done.set(); [t.join() for t in threads]
            check("A14 no request failed meanwhile", set(answers) == {201} and not os.path.exists(where + "2"), set(answers))
def old(c, head):
    """A server of HTTP/1.0, whose responses end with their connections."""
    c.sendall(b"HTTP/1.0 201 Created\r\nX-Line: " + head.split(b"\r\n")[0] + b"\r\n\r\nold")
def versions():
    listener = serve(old)
    with listener, Proxy([f"{listener.getsockname()[1]}/base"], store()) as proxy:
        k = new(); a, b = (call(proxy.port, "POST", "/x?y=1", k) for _ in "ab")
        check("HTTP/1.0 upstream below a base: stored, replayed", a[0] == b[0] == 201 and a[2] == b[2] == b"old" and a[1]["x-line"] == b[1]["x-line"] == "POST /base/x?y=1 HTTP/1.1", a, b)
    with Flaky() as up, Proxy([up.port], store()) as proxy:
        line, out = raw(proxy.port, f"POST /orders HTTP/1.0\r\nIdempotency-Key: {new()}\r\nContent-Length: 2\r\n\r\n{{}}")
        check("HTTP/1.0 client: 201", " 201 " in line and up.count("/orders") == 1, line)
        out = raw(proxy.port, "HEAD /headers HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        check("HEAD passes, what the upstream says of it too", " 501 " in out[0] + " ", out)
def scope():
    with Flaky() as up, Proxy([up.port], store(), "--scope", "header:X-Tenant") as proxy:
        k = new(); a = call(proxy.port, "POST", "/orders", k, body=b"x" * (1 << 20))
        check("scope absent: 400 idempotency_scope_missing, not run", a[0] == 400 and code(a) == "idempotency_scope_missing" and up.count("/orders") == 0, a)
        a, b = (call(proxy.port, "POST", "/orders", k, headers={"X-Tenant": t}) for t in "ab")
        check("two scopes: two operations", a[0] == b[0] == 201 and a[2] != b[2], a, b)
        a = call(proxy.port, "POST", "/orders"); check("without a key no scope is asked for", a[0] == 201, a)
def admin():
    port = free_port()
    with Flaky() as up, Proxy([up.port], store(), "--admin", f"127.0.0.1:{port}", "--drain-delay", "60s") as proxy:
        k = new(); [call(proxy.port, "POST", "/orders", k) for _ in "ab"]; call(proxy.port, "GET", "/count", headers={"Oncekey-Token": "x"})
        a, b = call(port, "GET", "/healthz"), call(port, "GET", "/readyz"); check("healthz and readyz: 200", a[0] == b[0] == 200, a, b)
        text = call(port, "GET", "/metrics")[2].decode(); lines = text.splitlines()
        want = ['oncekey_proxy_requests_total{route="*",keyed="yes",outcome="executed",status="2xx"} 1',
                'oncekey_proxy_requests_total{route="*",keyed="yes",outcome="replayed",status="2xx"} 1',
                'oncekey_proxy_requests_total{route="*",keyed="no",outcome="passed",status="2xx"} 1', "oncekey_proxy_stripped_headers_total 1"]
        check("metrics of the proxy and of the engine", all(w in lines for w in want) and "oncekey_sync_seconds_bucket" in text and "oncekey_in_flight 0" in lines, text)
        proxy.process.send_signal(signal.SIGTERM); c = until(lambda: call(port, "GET", "/readyz"), lambda c: c[0] == 503)
        check("readyz while it drains: 503, and requests are still served", c[2] == b'{"reason":"draining"}' and call(proxy.port, "POST", "/orders")[0] == 201, c)
CERTIFICATE = "[req]\ndistinguished_name=d\n[d]\n[e]\nsubjectAltName=IP:127.0.0.1\nbasicConstraints=critical,CA:FALSE\n"
def tls():
    with tempfile.TemporaryDirectory() as d:
        conf, key, crt, toml = (os.path.join(d, n) for n in ("conf", "key", "crt", "toml")); open(conf, "w").write(CERTIFICATE)
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", crt, "-days", "2", "-subj", "/CN=x", "-config", conf, "-extensions", "e"], check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); context.load_cert_chain(crt, key); ran = []
        def handle(c, head): ran.append(head); c.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 3\r\nConnection: close\r\n\r\ntls")
        with serve(handle, lambda c: context.wrap_socket(c, server_side=True)) as listener:
            for ca, name in ((f'ca = "{crt}"', "believed: stored, replayed"), ("", "not believed: 502 upstream_unreachable, freed")):
                port = free_port(); open(toml, "w").write(f'[upstream]\nurls = ["https://127.0.0.1:{listener.getsockname()[1]}"]\n{ca}\n')
                proxy = Process(); proxy.start([BINARY, "proxy", "--config", toml, "--listen", f"127.0.0.1:{port}", "--store", store()], port)
                with proxy:
                    k = new(); n = len(ran); a, b = (call(port, "POST", "/x", k) for _ in "ab"); n = len(ran) - n
                    check("TLS to the upstream, " + name, (a[0], b[0], n) == (201, 201, 1) if ca else (code(a), code(b), n) == ("upstream_unreachable",) * 2 + (0,), a, b, n)
def held():
    where = store()
    with Flaky() as up, Proxy([up.port], where):
        run = subprocess.run([BINARY, "proxy", "--listen", f"127.0.0.1:{free_port()}", "--upstream", "http://127.0.0.1:1", "--store", where, "--lock-wait", "200ms"], capture_output=True, text=True)
        check("a store in use: exit 5", run.returncode == 5 and "held by another process" in run.stderr, run)
BAD = """store = "/tmp/x"
[upstream]
urls = ["http://127.0.0.1:3000"]
[policy]
give_up_afer = "5m"
[policy.outcomes]
"500" = "release"
[[route]]
path = "/v1/payments/:id"
"""
def a13():
    with tempfile.TemporaryDirectory() as d:
        path = os.path.join(d, "bad.toml"); open(path, "w").write(BAD)
        run = subprocess.run([BINARY, "proxy", "--config", path, "--check"], capture_output=True, text=True)
        want = [f"{path}:5:1: unknown field `give_up_afer` in [policy]; did you mean `give_up_after`?",
                f"{path}:7:1: \"500\" = \"release\" runs an operation again that may have happened; write \"release-at-least-once\"",
                f"{path}:9:8: route \"/v1/payments/:id\": parameters are written {{id}}, the rest {{*rest}}"]
        check("A13 three mistakes, three lines, exit 2", run.returncode == 2 and run.stderr.splitlines() == want, run)
        open(path, "w").write(BAD.replace("afer", "after").replace('"release"', '"store"').replace(":id", "{id}"))
        run = subprocess.run([BINARY, "proxy", "--config", path, "--check", "--print"], capture_output=True, text=True)
        check("A13 mended: exit 0, prints what is in force", run.returncode == 0 and 'give_up_after = "5m"' in run.stdout, run)
        run = subprocess.run([BINARY, "proxy", "--upstream", "http://127.0.0.1:1", "--store", "mysql://db/x"], capture_output=True, text=True)
        check("A13 a store that is not supported: exit 2", run.returncode == 2 and "postgres://" in run.stderr, run)
        run = subprocess.run([BINARY, "check", "--config", path], capture_output=True, text=True)
        check("A13 oncekey check: the same without a proxy", run.returncode == 0, run)
        open(path, "w").write('[upstream]\nurls = ["http://192.0.2.1:1"]\nidle = "9s"\n[policy]\nrecovery = "retry"\nscope = "header:x-tenant"\ngive_up_after = "1s"\nmax_response = "3MiB"\n')
        run = subprocess.run([BINARY, "check", "--config", path, "--strict"], capture_output=True, text=True)
        check("A13 --strict: six warnings, exit 2", run.returncode == 2 and run.stderr.count("warning: ") == 6, run)
        for flags, words in ((["--scope", "mtls:sha256"], "needs --tls-client-ca"), (["--scope", "jwt:sub"], "keys or verified_by"), (["--scope", "path:t"], "[[route]]"),
                             (["--tls-cert", "x"], "--tls-key"), (["--admin", "0.0.0.0:1"], "--admin-token-file")):
            run = subprocess.run([BINARY, "proxy", "--upstream", "http://127.0.0.1:1", "--check", *flags], capture_output=True, text=True)
            check(f"A13 {' '.join(flags)} alone: exit 2", run.returncode == 2 and words in run.stderr, run)
        run = subprocess.run([BINARY, "proxy", "--upstream", "http://127.0.0.1:1", "--check", "--print", "--store", "postgres://app:secret@db/x"], capture_output=True, text=True)
        check("A13 a password is not printed", run.returncode == 0 and "app:***@db" in run.stdout and "secret" not in run.stdout + run.stderr, run)
def a15():
    with Flaky() as up, Proxy([up.port], store()) as proxy:
        head = "POST /orders HTTP/1.1\r\nHost: h\r\nConnection: close\r\n"
        for name, text in (
            ("Content-Length before Transfer-Encoding", head + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            ("Transfer-Encoding before Content-Length", head + "Transfer-Encoding: chunked\r\nContent-Length: 30\r\n\r\n0\r\n\r\n"),
            ("a smuggled second request", head + "Content-Length: 60\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nPOST /smuggled HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"),
            ("two lengths", head + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} "),
            ("a list of lengths", head + "Content-Length: 2, 3\r\n\r\n{} "),
            ("a signed length", head + "Content-Length: +2\r\n\r\n{}"),
            ("bare LF", (head + "Content-Length: 2\r\n\r\n{}").replace("\r\n", "\n")),
            ("a folded header", head + "X-A: b\r\n c: d\r\nContent-Length: 2\r\n\r\n{}"),
            ("a space before the colon", head + "Content-Length : 2\r\n\r\n{}"),
            ("two hosts", head + "Host: other\r\nContent-Length: 2\r\n\r\n{}"),
            ("another coding than chunked", head + "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
            ("two codings", head + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        ):
            n = up.count("/orders"); line, _ = raw(proxy.port, text); ran = up.count("/orders") - n
            check(f"A15 {name}: 400 or one request", (" 400 " in line + " " and ran == 0) or (" 201 " in line and ran == 1), line, ran)
        check("A15 nothing was smuggled", up.count("/smuggled") == 0)
        line, out = raw(proxy.port, f"POST /orders HTTP/1.1\r\nHost: h\r\nConnection: close, Oncekey-Attempt, Idempotency-Key\r\nOncekey_Attempt: 9\r\nONCEKEY-TOKEN: 9\r\nIdempotency-Key: {new()}\r\nContent-Length: 2\r\n\r\n{{}}")
        seen = json.loads(out.split(b"\r\n\r\n", 1)[1])["seen"] if " 201 " in line else {}
        check("A15 Connection and underscores: our headers only", seen.get("oncekey-attempt") == "1" and "9" not in seen.values(), line, seen)
ROWS = {"A1": a1, "A2": a2, "A3": a3, "A4": a4, "A5": a5, "A6": a6, "A7": a7, "A8": a8, "A10": a10, "A12": a12, "A13": a13, "A14": a14, "A15": a15,
        "versions": versions, "scope": scope, "admin": admin, "tls": tls, "held": held, **operators.ROWS, **messages.ROWS, **telemetry.ROWS, **reach.ROWS, **fleet.ROWS, **restarts.ROWS, **stores.ROWS}
# Run by name alone: they take minutes, or 2 GiB of traffic.
LONG = {"A9": a9, "A11": a11, **restarts.LONG}
for row in sys.argv[2:] or ROWS: ({**ROWS, **LONG})[row]()
sys.exit(has_failed())
