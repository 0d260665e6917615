"""Rows about processes that end: sockets of systemd, restarts under load, kill -9 of proxy and upstream."""
from rig import *
import random

def passed(listener, name="http"):
    """What systemd gives to a service: the socket as descriptor 3, and a socket to tell that it is ready."""
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); path = os.path.join(tempfile.mkdtemp(), "notify"); manager.bind(path); manager.settimeout(60)
    env = {**os.environ, "LISTEN_FDS": "1", "LISTEN_FDNAMES": name, "NOTIFY_SOCKET": path}; env.pop("LISTEN_PID", None)
    fd = listener.fileno(); return manager, {"env": env, "pass_fds": (3,), "preexec_fn": lambda: os.dup2(fd, 3, inheritable=True)}
def systemd():
    with Flaky() as up, socket.create_server(("127.0.0.1", 0)) as listener:
        args = [BINARY, "proxy", "--upstream", f"http://127.0.0.1:{up.port}", "--store", store(), "--listen"]; port = listener.getsockname()[1]
        manager, how = passed(listener)
        with manager, Process().start([*args, "systemd:http"], port, wait=False, **how) as proxy:
            check("systemd: READY=1", manager.recv(100) == b"READY=1"); check("systemd: requests come by its socket", call(port, "POST", "/orders", new())[0] == 201)
            proxy.process.send_signal(signal.SIGTERM); check("systemd: STOPPING=1, exit 0", manager.recv(100) == b"STOPPING=1" and proxy.process.wait(60) == 0)
        manager, how = passed(listener)
        with manager, Process().start([*args, "systemd:other"], port, wait=False, **how) as proxy: check("systemd: no socket of that name: exit 1", proxy.process.wait(60) == 1 and "no such socket" in proxy.said(), proxy.said())
def a12():
    where, ended, answers, lock = store(), threading.Event(), [], threading.Lock()
    with Flaky() as up, socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
        port = listener.getsockname()[1]; args = [BINARY, "proxy", "--upstream", f"http://127.0.0.1:{up.port}", "--store", where, "--listen", "systemd", "--access-log", "off"]
        def load():
            while not ended.is_set():
                a = call(port, "POST", "/orders", new(), timeout=120)
                with lock: answers.append(a)
        clients = [threading.Thread(target=load) for _ in range(8)]; lefts, waited = [], 0
        for restart in range(21):
            manager, how = passed(listener); begun = time.monotonic()
            with manager, Process().start(args, port, wait=False, **how) as proxy:
                assert manager.recv(100) == b"READY=1"; waited = max(waited, time.monotonic() - begun) if restart else 0
                if not restart: [t.start() for t in clients]
                n = len(answers); until(lambda: len(answers), lambda now: now >= n + 20)
                if restart == 20: ended.set(); [t.join() for t in clients]
                lefts.append(proxy.kill(signal.SIGTERM))
                if restart == 20: said = proxy.said()
        bad = [a for a in answers if a[0] != 201]; ids = [json.loads(a[2])["id"] for a in answers if a[0] == 201]
        check(f"A12 20 restarts under load, {len(answers)} requests, at most {waited:.2f} s to ready: none refused or broken", not bad, bad[:3])
        check("A12 no key ran twice", len(set(ids)) == len(ids) == up.count("/orders"), len(ids), up.count("/orders"))
        check("A12 each ended in order, without an orphan", lefts == [0] * 21 and "0 keys with unknown outcome" in said, lefts, said)
def a16(seconds=float(os.environ.get("ONCEKEY_KILL_SECONDS", 60))):
    """64 clients; the proxy and the upstream are killed in turn. The upstream notes each key that it runs, before it answers."""
    seed = int(os.environ.get("ONCEKEY_SEED", time.time_ns() % 2**32)); rng = random.Random(seed); print(f"A16 seed {seed}", flush=True)
    d = tempfile.mkdtemp(); ran, source = os.path.join(d, "ran"), os.path.join(d, "noting.py")
    open(source, "w").write(f"""import http.server, os, sys, uuid
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *a): pass
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])); os.write(out, self.headers["Idempotency-Key"].encode() + b"\\n")
        answer = uuid.uuid4().hex.encode() * 8; self.send_response(201); self.send_header("Content-Length", str(len(answer))); self.end_headers(); self.wfile.write(answer)
class S(http.server.ThreadingHTTPServer):
    daemon_threads = True; request_queue_size = 256
    def handle_error(self, *a): pass
out = os.open({ran!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
S(("127.0.0.1", int(sys.argv[1])), H).serve_forever()
""")
    back, front, where, ended, acknowledged, lock = free_port(), free_port(), store(), threading.Event(), {}, threading.Lock()
    behind = lambda: Process().start([sys.executable, source, str(back)], back)
    before = lambda: Proxy([back], where, "--access-log", "off", "--log-level", "error", port=front)
    def client():
        while not ended.is_set():
            k = new(); c = http.client.HTTPConnection("127.0.0.1", front, timeout=60)
            try:
                c.request("POST", "/pay", b"{}", {"Idempotency-Key": k, "Content-Type": "application/json"}); r = c.getresponse(); body = r.read()
                if r.status == 201:
                    with lock: acknowledged[k] = body
            except (OSError, http.client.HTTPException): time.sleep(.01)
            finally: c.close()
    up, proxy, kills = behind(), before(), [0, 0]; clients = [threading.Thread(target=client) for _ in range(64)]; [t.start() for t in clients]; until_when = time.monotonic() + seconds
    while time.monotonic() < until_when:
        time.sleep(rng.uniform(.3, 1.2)); proxy.kill(); kills[0] += 1; proxy = before()
        time.sleep(rng.uniform(.3, 1.2)); up.kill(); kills[1] += 1; up = behind()
    ended.set(); [t.join() for t in clients]
    with up, proxy:
        keys = open(ran).read().split(); twice = len(keys) - len(set(keys))
        wrong = [k for k, body in acknowledged.items() if (lambda a: (a[0], a[2]) != (201, body))(call(front, "POST", "/pay", k))]
        check(f"A16 {kills[0]} kills of the proxy, {kills[1]} of the upstream, {len(acknowledged)} acknowledged: each replays byte for byte", len(acknowledged) > 100 and not wrong, wrong[:3])
        check(f"A16 {len(keys)} executions: no key ran twice, checking included", twice == 0 and len(open(ran).read().split()) == len(keys), twice)
ROWS = {"systemd": systemd, "A12r": a12}
LONG = {"A16": a16}
