"""What all acceptance scripts share: processes, requests, checks."""
import http.client, json, os, signal, socket, ssl, subprocess, sys, tempfile, threading, time, uuid
# Scripts that bring no program ask a proxy that runs, or set it later.
BINARY = os.path.abspath(sys.argv[1]) if sys.argv[1:] else None; HERE = os.path.dirname(os.path.abspath(__file__))
failed = 0
def check(name, ok, *saw):
    global failed; failed += not ok; print(("ok   " if ok else "FAIL ") + name, *([] if ok else saw), flush=True)
def free_port():
    with socket.socket() as s: s.bind(("127.0.0.1", 0)); return s.getsockname()[1]
def wait_for(port, process):
    for _ in range(600):
        if process.poll() is not None: sys.exit(f"{process.args} ended with {process.returncode}")
        try: socket.create_connection(("127.0.0.1", port), 1).close(); return
        except OSError: time.sleep(.05)
    sys.exit(f"nothing listens on {port}")
def has_failed(): return failed > 0
class Process:
    def start(self, args, port, wait=True, **more):
        self.log = tempfile.TemporaryFile(); self.port = port
        self.process = subprocess.Popen(args, stderr=self.log, stdout=self.log, **more)
        if wait: wait_for(port, self.process)
        return self
    def kill(self, how=signal.SIGKILL):
        self.process.send_signal(how); return self.process.wait(60)
    def __enter__(self): return self
    def __exit__(self, *_):
        if self.process.poll() is None: self.kill()
    def said(self):
        """What it wrote. The offset of the file is the one that the process writes at, so it stays where it is."""
        return os.pread(self.log.fileno(), os.fstat(self.log.fileno()).st_size, 0).decode()
    def lines(self): return self.said().rpartition("\n")[0].split("\n")
    def says(self, words, times=1):
        """Waits for the words: a connection and an answer may come before the line that tells of them."""
        return until(self.said, lambda said: said.count(words) >= times).count(words) == times
class Flaky(Process):
    def __init__(self, port=None):
        port = port or free_port(); self.start([sys.executable, os.path.join(HERE, "flaky.py"), str(port)], port)
    def count(self, path): return json.loads(call(self.port, "GET", "/count")[2]).get("POST " + path, 0)
class Proxy(Process):
    def __init__(self, upstreams, store, *flags, port=None):
        port = port or free_port()
        ups = [f for u in upstreams for f in ("--upstream", u if isinstance(u, str) and ":/" in u else f"http://127.0.0.1:{u}")]
        self.start([BINARY, "proxy", "--listen", f"127.0.0.1:{port}", "--store", store, *ups, *flags], port)
def call(port, method, path, key=None, body=b"{}", timeout=30, headers=()):
    """Status, headers with names in lower case, body; status 0 and the reason when there is no answer."""
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    h = {"Content-Type": "application/json", **dict(headers)}
    if key: h["Idempotency-Key"] = key
    try:
        c.request(method, path, body if method != "GET" else None, h); r = c.getresponse()
        return r.status, {n.lower(): v for n, v in r.getheaders()}, r.read()
    except (OSError, http.client.HTTPException) as e: return 0, {}, repr(e).encode()
    finally: c.close()
def code(answer): return member(answer, "code")
def member(answer, name):
    try: return json.loads(answer[2]).get(name)
    except (ValueError, AttributeError): return None
def new(): return str(uuid.uuid4())
def store(): return os.path.join(tempfile.mkdtemp(), "keys")
def until(answer, ok):
    """Repeats a call until its answer is as wanted, within a generous time."""
    for _ in range(300):
        last = answer()
        if ok(last): return last
        time.sleep(.1)
    return last
def serve(handle, wrap=lambda c: c):
    """A server of raw sockets: calls handle(connection, head of the first request) for each connection."""
    listener = socket.create_server(("127.0.0.1", 0))
    def one(c):
        try: c = wrap(c)
        except OSError: return c.close()
        with c:
            head = b""
            while b"\r\n\r\n" not in head:
                more = c.recv(65536)
                if not more: return
                head += more
            handle(c, head)
    def loop():
        while True:
            try: c, _ = listener.accept()
            except OSError: return
            threading.Thread(target=one, args=(c,), daemon=True).start()
    threading.Thread(target=loop, daemon=True).start(); return listener
def raw(port, text):
    with socket.create_connection(("127.0.0.1", port), 10) as s:
        s.sendall(text.encode("latin-1")); s.settimeout(10); out = b""
        try:
            while more := s.recv(65536): out += more
        except OSError: pass
    return out.split(b"\r\n")[0].decode("latin-1"), out
def toml(text):
    """A configuration file."""
    path = os.path.join(tempfile.mkdtemp(), "oncekey.toml"); open(path, "w").write(text); return path
def serve_config(path, port):
    return Process().start([BINARY, "proxy", "--config", path, "--listen", f"127.0.0.1:{port}", "--store", store()], port)
def over_unix(path, method, target, body=None, headers=()):
    """One request to a Unix socket: status and body."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(30); s.connect(path); data = json.dumps(body).encode() if body is not None else b""
        head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(data)}\r\nContent-Type: application/json\r\n"
        s.sendall((head + "".join(f"{n}: {v}\r\n" for n, v in headers) + "\r\n").encode() + data); out = b""
        while more := s.recv(65536): out += more
    head, _, rest = out.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" in head.lower():
        whole = b""
        while rest:
            size, _, rest = rest.partition(b"\r\n"); n = int(size, 16)
            if not n: break
            whole += rest[:n]; rest = rest[n + 2:]
        rest = whole
    return int(head.split()[1]), rest
