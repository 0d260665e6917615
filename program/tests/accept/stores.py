"""Rows about a store that is full or fails, and about several upstreams that fail in different ways."""
from rig import *
import struct

def fill(path):
    """Takes the rest of the space of a volume."""
    with open(path, "wb", buffering=0) as ballast:
        try:
            while True: ballast.write(b"x" * 4096)
        except OSError: pass
def full():
    at = tempfile.mkdtemp()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", at], capture_output=True).returncode: print("LEFT OUT: a small volume cannot be mounted here", flush=True); return
    try:
        with Flaky() as up, Proxy([up.port], os.path.join(at, "keys"), "--admin", f"127.0.0.1:{(admin := free_port())}") as proxy:
            ready = lambda: call(admin, "GET", "/readyz"); done = new(); call(proxy.port, "POST", "/orders", done)
            ks, out = [new() for _ in range(4)], {}
            run = lambda k: out.__setitem__(k, call(proxy.port, "POST", "/slow?ms=5000", k, timeout=60))
            ts = [threading.Thread(target=run, args=(k,)) for k in ks]; [t.start() for t in ts]; until(lambda: up.count("/slow"), lambda n: n == 4)
            fill(os.path.join(at, "ballast")); refused = until(lambda: call(proxy.port, "POST", "/big?kb=200", new()), lambda a: a[0] == 503)
            check("full: a new key: 503, Retry-After", code(refused) == "idempotency_store_unavailable" and refused[1].get("retry-after") == "1", refused)
            # The proxy looks after the store every second from here on: that must not fail it.
            again = until(lambda: (call(proxy.port, "POST", "/orders", new())[0], [t.is_alive() for t in ts]), lambda a: not any(a[1])); a = ready()
            check("full: not ready, and the store is well otherwise", again[0] == 503 and a[0] == 503 and a[2] == b'{"reason":"store_full"}', again, a)
            sweep = subprocess.run([BINARY, "ctl", "sweep", "--store", os.path.join(at, "keys")], capture_output=True, text=True); check("full: a sweep that finds nothing does no harm", sweep.returncode == 0 and ready()[2] == b'{"reason":"store_full"}', sweep)
            check("full: what ran is answered and stored", all(out[k][0] == 201 and call(proxy.port, "POST", "/slow?ms=5000", k)[2] == out[k][2] for k in ks) and up.count("/slow") == 4, out)
            check("full: replays and requests without a key go on", call(proxy.port, "POST", "/orders", done)[0] == call(proxy.port, "POST", "/orders")[0] == 201)
            subprocess.run(["mount", "-o", "remount,size=64m", at], check=True); a = until(ready, lambda a: a[0] == 200); b = call(proxy.port, "POST", "/orders", new())
            check("full: with room it goes on by itself", a[0] == 200 and b[0] == 201, a, b)
            check("full: closed in order, without an orphan", proxy.kill(signal.SIGTERM) == 0 and "0 left in flight" in proxy.said(), proxy.said())
    finally: subprocess.run(["umount", "-l", at])
def failed():
    where = store(); aside = os.path.dirname(where)
    with Flaky() as up, Proxy([up.port], where, "--admin", f"127.0.0.1:{(admin := free_port())}") as proxy:
        ready = lambda: call(admin, "GET", "/readyz"); done, slow, out = new(), new(), []; call(proxy.port, "POST", "/orders", done)
        t = threading.Thread(target=lambda: out.append(call(proxy.port, "POST", "/slow?ms=3000", slow))); t.start(); until(lambda: up.count("/slow"), lambda n: n == 1)
        names = [n for n in os.listdir(where) if n.startswith("journal")]; [os.rename(os.path.join(where, n), os.path.join(aside, n)) for n in names]
        k = new(); a = call(proxy.port, "POST", "/orders", k); b = until(ready, lambda b: b[0] == 503)
        check("failed: the journal is gone: 503, not ready", (a[0], code(a), b[2]) == (503, "idempotency_store_unavailable", b'{"reason":"store_failed"}'), a, b)
        check("failed: replays and requests without a key go on", call(proxy.port, "POST", "/orders", done)[0] == call(proxy.port, "POST", "/orders")[0] == 201); t.join()
        c = call(proxy.port, "POST", "/slow?ms=3000", slow); check("failed: what ran is answered, its retry waits for the store: 503", out[0][0] == 201 and (c[0], code(c)) == (503, "idempotency_store_unavailable"), out, c)
        [os.rename(os.path.join(aside, n), os.path.join(where, n)) for n in names]; d = until(ready, lambda d: d[0] == 200); e = call(proxy.port, "POST", "/slow?ms=3000", slow)
        check("failed: reopened by itself; what was not recorded is unknown and ran once", d[0] == 200 and proxy.says("the store is open again") and code(e) == "idempotency_outcome_unknown" and up.count("/slow") == 1, d, e)
        f = call(proxy.port, "POST", "/orders", new()); check("failed: new keys run again", f[0] == 201, f)
def several():
    ran = []
    def answering(name, then):
        def handle(c, head): ran.append(name); then(c)
        return serve(handle)
    over, ok = threading.Event(), b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
    reset = lambda c: c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    well, resets, breaks, silent = answering("well", lambda c: c.sendall(ok)), answering("resets", reset), answering("breaks", lambda c: c.sendall(ok[:-1])), answering("silent", lambda c: over.wait(60))
    with well, resets, breaks, silent:
        for name, bad, unknown, unkeyed in (("refuses", free_port(), None, None), ("resets", resets, (502, "reset"), (502, "upstream_failed")), ("breaks", breaks, (502, "reset"), (0, None)), ("silent", silent, (504, "timeout"), (504, "upstream_timeout"))):
            port = bad if isinstance(bad, int) else bad.getsockname()[1]; ran.clear()
            with Proxy([port, well.getsockname()[1]], store(), "--give-up-after", "300ms") as proxy:
                ks = [new() for _ in range(4)]; first = [call(proxy.port, "POST", "/x", k) for k in ks]; n = len(ran); again = [call(proxy.port, "POST", "/x", k) for k in ks]
                want = [201] * 4 if unknown is None else [unknown[0], 201] * 2
                check(f"several: one {name}, one is well: {'the other runs it' if unknown is None else 'half are unknown'}", [a[0] for a in first] == want and n == 4 and all(a[0] == 201 or (code(a), member(a, "upstream")) == ("idempotency_outcome_unknown", unknown[1]) for a in first), first, ran)
                check(f"several: one {name}: no retry runs at the other", [code(a) for a in again] == [code(a) for a in first] and len(ran) == n and {a[0] for a in again} <= {201, 409}, again, ran)
                plain = [call(proxy.port, "POST", "/x") for _ in range(4)]; bads = [a for a in plain if a[0] != 201]
                check(f"several: one {name}, without a key", len(ran) == n + 4 and len(bads) == (0 if unkeyed is None else 2) and all((a[0], code(a)) == unkeyed for a in bads), plain, ran)
        over.set()
        # No process accepts, so connects are neither refused nor answered.
        with socket.socket() as deaf:
            deaf.bind(("127.0.0.1", 0)); deaf.listen(0); waiting = [socket.socket() for _ in range(3)]
            for s in waiting: s.setblocking(False); s.connect_ex(deaf.getsockname())
            path = toml(f'[upstream]\nurls = ["http://127.0.0.1:{deaf.getsockname()[1]}"]\nconnect_timeout = "200ms"\n')
            with serve_config(path, (port := free_port())):
                a = call(port, "POST", "/x", new()); check("several: connects time out: 502 upstream_unreachable, for a timeout", (a[0], code(a), member(a, "upstream"), a[1].get("retry-after")) == (502, "upstream_unreachable", "timeout", "1"), a)
            [s.close() for s in waiting]
ROWS = {"full": full, "failed": failed, "several": several}
