"""Rows about operators: the control socket, the API over TCP, restored stores."""
from rig import *
import datetime, stat

def control():
    where, audit = store(), os.path.join(tempfile.mkdtemp(), "audit"); port = free_port()
    with Flaky() as up:
        path = toml(f'[upstream]\nurls = ["http://127.0.0.1:{up.port}"]\n[admin]\naudit_log = "{audit}"\nshow_responses = true\n[policy]\nttl = "24h"\n')
        with Process().start([BINARY, "proxy", "--config", path, "--listen", f"127.0.0.1:{port}", "--store", where], port) as proxy:
            note = open(os.path.join(where, "LOCK")).read(); lines = dict(l.split(" ", 1) for l in note.strip().splitlines())
            check("control: the store notes its owner", lines.get("pid") == str(proxy.process.pid) and lines.get("control", "").startswith("unix:"), note)
            sock = lines["control"][5:]; mode = stat.S_IMODE(os.stat(sock).st_mode)
            check("control: the socket is its user's alone", mode == 0o600, oct(mode))
            ask = lambda method, target, body=None: over_unix(sock, method, target, body)
            info = json.loads(ask("GET", "/api/v1/info")[1])
            check("control: info", info["role"] == "operator" and info["store"] == where and info["contract"]["headers"][0] == "idempotency-key" and info["pid"] == proxy.process.pid, info)
            k = new(); call(port, "POST", "/reset", k); orphans = until(lambda: json.loads(ask("GET", "/api/v1/orphans")[1]), lambda o: o["total"])
            check("control: the orphan is listed", orphans["total"] == 1 and orphans["orphans"][0]["key"] == k, orphans)
            it = orphans["orphans"][0]; said = {"scope": it["scope"], "key": k, "token": it["token"], "reason": "never charged", "confirm": it["token"][-4:], "status": 201, "headers": [["content-type", "application/json"]], "body": '{"id":7}'}
            done = ask("POST", "/api/v1/orphans/complete", said); again = ask("POST", "/api/v1/orphans/complete", said)
            check("control: it is completed once", done[0] == 200 and again[0] == 409, done, again)
            a = call(port, "POST", "/reset", k); check("control: the client's retry gets that response", a[0] == 201 and a[2] == b'{"id":7}' and up.count("/reset") == 1, a)
            lines = [json.loads(l) for l in open(audit)]
            check("control: the audit log has both lines, with the reason", [l["result"].split(":")[0] for l in lines] == ["asked", "done", "asked", "refused"] and lines[0]["reason"] == "never charged" and lines[0]["who"].startswith("uid "), lines)
            body = ask("GET", f"/api/v1/keys/response?key={k}"); check("control: the stored response", body == (200, b'{"id":7}'), body)
            listed = json.loads(ask("GET", "/api/v1/keys/list?limit=10")[1]); check("control: keys are listed", [e["key"] for e in listed["keys"]] == [k], listed)
            config = json.loads(ask("GET", "/api/v1/config")[1])["toml"]; check("control: the configuration in force", 'ttl = "24h"' in config, config)
            text = open(path).read(); open(path, "w").write(text.replace('"24h"', '"12h"')); done = ask("POST", "/api/v1/reload", {})
            check("control: reload", done[0] == 200 and 'ttl = "12h"' in json.loads(ask("GET", "/api/v1/config")[1])["toml"], done)
            open(path, "w").write("nonsense"); done = ask("POST", "/api/v1/reload", {}); check("control: a reload that is refused says why", done[0] == 409 and b":1:" in done[1], done)
            series = until(lambda: json.loads(ask("GET", "/api/v1/series?window=1m")[1]), lambda s: s.get("requestP99Ms") and s.get("syncP99Ms"))
            check("control: latencies of requests and syncs", len(series["requestP99Ms"]) == len(series["claimed"]), series.keys())
            check("control: health and metrics", ask("GET", "/readyz")[0] == 200 and b"oncekey_proxy_requests_total" in ask("GET", "/metrics")[1])
            done = ask("POST", "/api/v1/drain", {}); check("control: drain ends the process in order", done[0] == 200 and proxy.process.wait(60) == 0 and not os.path.exists(sock), done)
    with Flaky() as up, Proxy([up.port], where, "--no-control") as proxy:
        note = open(os.path.join(where, "LOCK")).read(); ended = proxy.kill(signal.SIGTERM)
        check("--no-control: no socket and no note", ended == 0 and "control socket" not in proxy.said() and note == "", note)
def tokens():
    port, d = free_port(), tempfile.mkdtemp(); token = os.path.join(d, "token")
    with Flaky() as up, Proxy([up.port], store(), "--admin", f"0.0.0.0:{port}", "--admin-token-file", token):
        mode = stat.S_IMODE(os.stat(token).st_mode); secret = open(token).read().strip()
        check("tokens: the file is made, 0600", mode == 0o600 and len(secret) == 64, oct(mode))
        get = lambda **h: call(port, "GET", "/api/v1/info", headers=[(n.replace("_", "-"), v) for n, v in h.items()])
        a, b = get(), get(Authorization=f"Bearer {secret}"); check("tokens: 401 without, 200 with", (a[0], b[0]) == (401, 200), a, b)
        check("tokens: health needs none, the page of the console neither", call(port, "GET", "/healthz")[0] == 200 and b"<html" in call(port, "GET", "/")[2].lower())
        a = call(port, "GET", "/api/v1/info", headers={"Host": "evil.example", "Authorization": f"Bearer {secret}"}); check("tokens: another host: 421", a[0] == 421, a)
        answers = [get(Authorization="Bearer wrong")[0] for _ in range(11)]; check("tokens: ten wrong ones, then 429", answers == [401] * 10 + [429], answers)
def restored():
    with Flaky() as up:
        path = toml(f'[upstream]\nurls = ["http://127.0.0.1:{up.port}"]\n[restore]\nrefuse_uuid7_before = "2026-01-01T00:00:00Z"\n'); port = free_port()
        with serve_config(path, port):
            at = lambda year: "{:08x}-{:04x}-7000-8000-000000000001".format(*divmod(int(datetime.datetime(year, 1, 1, tzinfo=datetime.timezone.utc).timestamp() * 1000), 65536))
            a, b, c = (call(port, "POST", "/orders", k) for k in (at(2025), at(2027), "order-7"))
            check("restored: a key from before is refused, others run", (a[0], code(a), b[0], c[0]) == (409, "idempotency_outcome_unknown", 201, 201) and up.count("/orders") == 2, a, b, c)
def misspelled():
    with Flaky() as up, Proxy([up.port], store(), "--admin", f"127.0.0.1:{(port := free_port())}") as proxy:
        check("the start says where the console is, and how to sign in", proxy.says(f"console http://127.0.0.1:{port}/; `oncekey console`"), proxy.said())
        for name in ("Idempotence-Key", "Idempotency_Key", "X-Request-Idempotency-Key"): call(proxy.port, "POST", "/orders", headers={name: "k"})
        call(proxy.port, "GET", "/count", headers={"Idempotence-Key": "k"}); text = call(port, "GET", "/metrics")[2].decode()
        check("a header that looks like that of a key: counted, logged once", "oncekey_proxy_unrecognized_key_header_total 3" in text and proxy.says("looks like that of a key"), proxy.said())
def outcomes():
    with Flaky() as up, Proxy([up.port], store(), "--log", "json") as proxy:
        k = new(); [call(proxy.port, "POST", "/orders", k) for _ in "ab"]; call(proxy.port, "POST", "/orders", k, body=b"other")
        call(proxy.port, "POST", "/not-executed", new()); u = new(); [call(proxy.port, "POST", "/reset", u) for _ in "ab"]; s = new(); [call(proxy.port, "POST", "/sse", s) for _ in "ab"]
        call(proxy.port, "POST", "/orders", "a" * 256); call(proxy.port, "POST", "/orders")
        told = lambda: [json.loads(l)["outcome"] for l in proxy.lines() if '"msg":"request"' in l]
        lines = until(told, lambda lines: len(lines) == 10)
        want = ["executed", "replayed", "mismatched", "freed", "unknown", "unknown", "executed", "not_stored", "refused", "passed"]
        check("the access log tells outcomes apart", lines == want, lines)
ROWS = {"control": control, "tokens": tokens, "restored": restored, "misspelled": misspelled, "outcomes": outcomes}
