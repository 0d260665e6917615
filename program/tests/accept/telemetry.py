"""Rows about the reports of the proxy: every metric that docs/proxy.md names, every field of the access log."""
from rig import *
import re, struct

PAGE = open(os.path.join(HERE, "../../../docs/proxy.md")).read()
NAMED = re.findall(r"^\| `(oncekey_\w+)` \| (counter|gauge|histogram)(?:, by ((?:`\w+`(?:, )?)+))? \|", PAGE, re.M)
def scraped(port): return call(port, "GET", "/metrics")[2].decode()
def value(text, name, **labels):
    """The sum over the series that have these labels; None without one."""
    found = [float(v) for n, shown, v in re.findall(r"^(\w+)(\{.*\})? (\S+)$", text, re.M) if n == name and all(f'{k}="{w}"' in shown for k, w in labels.items())]
    return sum(found) if found else None
def metrics():
    admin, dead = free_port(), free_port()
    with Flaky() as up:
        path = toml(f'listen = ["127.0.0.1:{(port := free_port())}"]\n[upstream]\nurls = ["http://127.0.0.1:{up.port}"]\nhealth = "/count"\n[admin]\nlisten = "127.0.0.1:{admin}"\n[[route]]\npath = "/v1/{{id}}"\n')
        with Process().start([BINARY, "proxy", "--config", path, "--store", store()], port) as proxy:
            here, get = f"http://127.0.0.1:{up.port}", lambda: scraped(admin)
            k = new(); [call(port, "POST", "/v1/7", k) for _ in "ab"]; call(port, "POST", "/reset", new()); call(port, "POST", "/half", new()); call(port, "POST", "/reset"); call(port, "POST", "/ttl?s=x", new())
            call(port, "GET", "/count", headers={"Oncekey-Token": "x"}); call(port, "POST", "/orders", headers={"Idempotence-Key": "k"}); proxy.process.send_signal(signal.SIGHUP)
            text = until(get, lambda t: value(t, "oncekey_config_reloads_total", result="done") and value(t, "oncekey_proxy_upstream_up"))
            for name, kind, labels in NAMED:
                series = re.findall(rf"^{name}{'_count' if kind == 'histogram' else ''}(\{{.*\}})? ", text, re.M)
                check(f"metrics: {name}", series and f"# TYPE {name} {kind}" in text and set(re.findall(r"(\w+)=", series[0])) == set(re.findall(r"\w+", labels)), series, labels)
            ran = lambda **labels: value(text, "oncekey_proxy_requests_total", **labels)
            check("metrics: requests by route and outcome", (ran(route="/v1/{id}", outcome="executed"), ran(route="/v1/{id}", outcome="replayed"), ran(keyed="no", outcome="failed", status="5xx")) == (1, 1, 1), text)
            fails = lambda stage: value(text, "oncekey_proxy_upstream_failures_total", upstream=here, stage=stage, sent="maybe")
            check("metrics: a reset is a failure of the head, half a body one of the body", (fails("head"), fails("body")) == (2, 1), text)
            check("metrics: each answer of the upstream is timed", value(text, "oncekey_proxy_upstream_seconds_count", upstream=here) == 5, text)
            check("metrics: a TTL that is none is counted", value(text, "oncekey_proxy_ignored_headers_total", header="oncekey-ttl") == 1, text)
            connections = lambda state: (lambda t: value(t, "oncekey_proxy_upstream_connections", upstream=here, state=state))
            slow = threading.Thread(target=call, args=(port, "POST", "/slow?ms=3000", new())); slow.start()
            check("metrics: a connection is busy", until(get, lambda t: connections("busy")(t) == 1) and connections("busy")(get()) == 1); slow.join()
            call(port, "POST", "/orders", new()); check("metrics: then idle, then closed", until(get, lambda t: connections("idle")(t) == 0 and connections("busy")(t) == 0) and connections("busy")(get()) == 0)
            with socket.create_connection(("127.0.0.1", port)) as s:
                s.sendall(f"POST /orders HTTP/1.1\r\nHost: h\r\nIdempotency-Key: {new()}\r\nContent-Length: 100000\r\n\r\n".encode() + b"x" * 50000)
                held = lambda t: value(t, "oncekey_proxy_buffered_bytes", of="requests")
                check("metrics: what is held of a request", held(until(get, lambda t: held(t) >= 50000)) >= 50000)
            check("metrics: nothing is held in the end", until(get, lambda t: value(t, "oncekey_proxy_buffered_bytes") == 0) and value(get(), "oncekey_proxy_buffered_bytes") == 0, get())
    with Flaky() as up, Proxy([dead, up.port], store(), "--admin", f"127.0.0.1:{(admin := free_port())}") as proxy:
        [call(proxy.port, "POST", "/orders", new()) for _ in "ab"]; text = scraped(admin)
        check("metrics: a refused connection, and the try after it", value(text, "oncekey_proxy_upstream_failures_total", stage="connect", sent="no") == 1 == value(text, "oncekey_proxy_upstream_retries_total"), text)
    with serve(lambda c, head: c.close(), lambda c: c) as listener, Proxy([f"http://no.such.name.invalid:{dead}", f"https://127.0.0.1:{listener.getsockname()[1]}"], store(), "--admin", f"127.0.0.1:{(admin := free_port())}") as proxy:
        a = call(proxy.port, "POST", "/orders", new()); text = scraped(admin)
        check("metrics: no name, no TLS: their stages", code(a) == "upstream_unreachable" and all(value(text, "oncekey_proxy_upstream_failures_total", stage=stage, sent="no") == 1 for stage in ("resolve", "tls")), a, text)
    with Flaky() as up, Process().start([BINARY, "proxy", "--config", toml(f'listen = ["127.0.0.1:{(port := free_port())}"]\n[upstream]\nurls = ["http://127.0.0.1:{up.port}"]\nmax_connections = 1\nconnect_timeout = "200ms"\n[admin]\nlisten = "127.0.0.1:{(admin := free_port())}"\n'), "--store", store()], port):
        slow = threading.Thread(target=call, args=(port, "POST", "/slow?ms=5000", new())); slow.start(); until(lambda: value(scraped(admin), "oncekey_proxy_upstream_connections", state="busy"), lambda n: n == 1)
        k = new(); a = call(port, "POST", "/orders", k); text = scraped(admin)
        check("metrics: all connections in use: a checkout, surely not sent", code(a) == "upstream_unreachable" and value(text, "oncekey_proxy_upstream_failures_total", stage="checkout", sent="no") == 1 == value(text, "oncekey_proxy_upstream_failures_total"), a, text); slow.join()
        b = call(port, "POST", "/orders", k); check("metrics: and its key was free", b[0] == 201, b)
    def never_reads(c, head):
        if b"/stuck" in head: c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)); return
        c.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n" + b"x" * 60000); go_on.wait(60); c.sendall(b"x" * 30000)
    go_on = threading.Event()
    with serve(never_reads) as listener, Proxy([listener.getsockname()[1]], store(), "--admin", f"127.0.0.1:{(admin := free_port())}") as proxy:
        a = call(proxy.port, "POST", "/stuck", body=b"x" * (64 << 20)); text = scraped(admin)
        check("metrics: a reset while the request is sent: a write, maybe sent", a[0] in (0, 502) and value(text, "oncekey_proxy_upstream_failures_total", stage="write", sent="maybe") == 1 == value(text, "oncekey_proxy_upstream_failures_total"), a[0], text)
        answers = []; asked = threading.Thread(target=lambda: answers.append(call(proxy.port, "POST", "/held", new()))); asked.start()
        held = lambda t: value(t, "oncekey_proxy_buffered_bytes", of="responses")
        check("metrics: what is held of a response", held(until(lambda: scraped(admin), lambda t: held(t) >= 60000)) == 60000)
        go_on.set(); asked.join()
        check("metrics: it was handed on whole, and is held no more", len(answers[0][2]) == 90000 and held(until(lambda: scraped(admin), lambda t: held(t) == 0)) == 0, answers[0][:2])
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
def log():
    with Flaky() as up, Proxy([up.port], store(), "--log", "json") as proxy:
        k, parent = new(), f"00-{TRACE}-00f067aa0ba902b7-01"
        a = [call(proxy.port, "POST", "/orders", k, b'{"a": 1}', headers={"traceparent": parent}) for _ in "ab"]
        call(proxy.port, "POST", "/orders", headers={"traceparent": "nonsense"}); call(proxy.port, "POST", "/big?kb=100")
        seen = dict(json.loads(call(proxy.port, "GET", "/headers", headers={"traceparent": parent})[2]))
        with socket.create_connection(("127.0.0.1", proxy.port)) as s:
            s.sendall(f"POST /slow?ms=1000 HTTP/1.1\r\nHost: h\r\nIdempotency-Key: {new()}\r\nContent-Length: 0\r\n\r\n".encode())
            until(lambda: up.count("/slow"), lambda n: n == 1)
        told = lambda: [json.loads(l) for l in proxy.lines() if '"msg":"request"' in l]
        lines = until(told, lambda lines: len(lines) == 6)
        want = ["ts", "msg", "method", "route", "status", "outcome", "attempt", "ms", "upstreamMs", "bytesIn", "bytesOut", "peer", "trace"]
        check("log: every field of the page, in every line", all(list(l) == want for l in lines) and list(json.loads(re.search(r"^\{\"ts\".*\}$", PAGE, re.M).group())) == want, lines)
        ran, replayed, passed, big, head, left = lines
        check("log: an execution", (ran["outcome"], ran["attempt"], ran["status"], ran["bytesIn"], ran["bytesOut"], ran["trace"], ran["peer"]) == ("executed", 1, 201, 8, len(a[0][2]), TRACE, "127.0.0.1") and 0 < ran["upstreamMs"] <= ran["ms"], ran)
        check("log: a replay asks no upstream", (replayed["outcome"], replayed["attempt"], replayed["upstreamMs"], replayed["bytesIn"], replayed["bytesOut"], replayed["trace"]) == ("replayed", None, None, 8, len(a[1][2]), TRACE), replayed)
        check("log: without a key", (passed["outcome"], passed["attempt"], passed["bytesIn"], passed["trace"]) == ("passed", None, 2, None) and passed["upstreamMs"] > 0, passed)
        check("log: a long response is counted to its end", big["bytesOut"] == 100 << 10, big)
        check("log: the upstream gets the traceparent as it came", head["trace"] == TRACE and {n.lower(): v for n, v in seen.items()}["traceparent"] == parent, seen)
        check("log: a client that goes away leaves a line", (left["outcome"], left["status"], left["attempt"]) == ("gone", None, 1), left)
def form():
    """Every line from the start to the end, also of a start that fails, has the form of the log."""
    line = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z +(INFO|ERROR) oncekey: \S")
    def is_json(l):
        try: l = json.loads(l)
        except ValueError: return False
        return l["level"] in ("INFO", "ERROR") and l["target"] == "oncekey" and bool(l["fields"]["message"])
    quiet = ["--access-log", "off", "--admin", "127.0.0.1:0"]
    with Flaky() as up:
        for flags, fits in ([], is_json), (["--log", "json"], is_json), (["--log", "text"], line.match):
            with Proxy([up.port], store(), *quiet, *flags) as proxy:
                until(proxy.said, lambda said: "console http" in said); left = proxy.kill(signal.SIGTERM)
                words = ("listening on http", "ttl 24h", "keys in idempotency-key", "control socket /", "console http", "closed: 0 executed")
                check(f"form: {flags}: one form from the start to the end", left == 0 and all(fits(l) for l in proxy.lines()) and all(proxy.says(w) for w in words) and ("try: curl" in proxy.said()) == (fits != is_json), proxy.said())
            run = subprocess.run([BINARY, "proxy", "--listen", "127.0.0.1:0", "--upstream", f"http://127.0.0.1:{up.port}", "--store", "/dev/null", *flags], capture_output=True, text=True)
            check(f"form: {flags}: a start that fails", run.returncode == 1 and all(fits(l) for l in run.stderr.splitlines()) and "cannot open /dev/null" in run.stderr, run)
ROWS = {"metrics": metrics, "log": log, "form": form}
