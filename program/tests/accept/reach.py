"""Rows about the clients and upstreams that the proxy can talk to: TLS, scopes, sockets, HTTP/2, a server of its own."""
from rig import *
import base64, hashlib, hmac, re

def openssl(*args, data=None): return subprocess.run(["openssl", *args], check=True, capture_output=True, input=data).stdout
def authority(d):
    """A certificate authority, and certificates of a server and of two clients."""
    at = lambda name: os.path.join(d, name)
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", at("ca.key"), "-out", at("ca.crt"), "-days", "2", "-subj", "/CN=ca")
    for name, alt in (("server", "IP:127.0.0.1"), ("server2", "IP:127.0.0.1,DNS:second"), ("one", "URI:spiffe://x/one,DNS:one.example"), ("two", "URI:spiffe://x/two"), ("many", "URI:a:1,URI:a:2")):
        open(at("ext"), "w").write(f"subjectAltName={alt}\nbasicConstraints=critical,CA:FALSE\n")
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", at(name + ".key"), "-out", at("csr"), "-subj", f"/CN={name}")
        openssl("x509", "-req", "-in", at("csr"), "-CA", at("ca.crt"), "-CAkey", at("ca.key"), "-CAcreateserial", "-days", "2", "-extfile", at("ext"), "-out", at(name + ".crt"))
    return at
def secure(port, at, key, client=None, path="/orders"):
    context = ssl.create_default_context(cafile=at("ca.crt")); context.check_hostname = False
    if client: context.load_cert_chain(at(client + ".crt"), at(client + ".key"))
    c = http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=context)
    try:
        c.request("POST", path, b"{}", {"Content-Type": "application/json", **({"Idempotency-Key": key} if key else {})}); r = c.getresponse(); cert = c.sock.getpeercert()
        return r.status, {n.lower(): v for n, v in r.getheaders()}, r.read(), [v for _, v in cert["subjectAltName"]]
    except (OSError, http.client.HTTPException) as e: return 0, {}, repr(e).encode(), []
    finally: c.close()
def client_tls():
    at = authority(tempfile.mkdtemp())
    def replace(name):
        for end in (".crt", ".key"): open(at("live" + end), "w").write(open(at(name + end)).read())
    replace("server")
    with Flaky() as up, Process().start([BINARY, "proxy", "--listen", f"127.0.0.1:{(port := free_port())}", "--upstream", f"http://127.0.0.1:{up.port}", "--store", store(), "--tls-cert", at("live.crt"), "--tls-key", at("live.key")], port) as proxy:
        k = new(); a, b = secure(port, at, k), secure(port, at, k); check("TLS to clients: runs, replays", a[0] == b[0] == 201 and a[2] == b[2] and up.count("/orders") == 1, a, b)
        check("TLS to clients: plain text is no request", call(port, "POST", "/orders", new())[0] == 0 and up.count("/orders") == 1)
        replace("server2"); proxy.process.send_signal(signal.SIGHUP)
        c = until(lambda: secure(port, at, None, path="/other"), lambda c: "second" in c[3]); check("TLS to clients: SIGHUP reads the certificate again", "second" in c[3], c)
        open(at("live.crt"), "w").write("nonsense"); proxy.process.send_signal(signal.SIGHUP)
        check("TLS to clients: nonsense is refused, the old one stays", until(proxy.said, lambda s: "was not reloaded" in s) and secure(port, at, new())[0] == 201)
def mtls():
    at = authority(tempfile.mkdtemp())
    for spec, same in (("san-uri", 0), ("san-dns", 0), ("sha256", 0)):
        with Flaky() as up, Process().start([BINARY, "proxy", "--listen", f"127.0.0.1:{(port := free_port())}", "--upstream", f"http://127.0.0.1:{up.port}", "--store", store(),
                "--tls-cert", at("server.crt"), "--tls-key", at("server.key"), "--tls-client-ca", at("ca.crt"), "--scope", f"mtls:{spec}"], port):
            k = new(); one, again, two = secure(port, at, k, "one"), secure(port, at, k, "one"), secure(port, at, k, "two")
            if spec == "san-dns": check("mtls:san-dns: a certificate without one: 400", one[0] == again[0] == 201 and two[0] == 400 and code(two) == "idempotency_scope_missing", one, two)
            else: check(f"mtls:{spec}: two clients, two operations", one[0] == two[0] == 201 and one[2] == again[2] != two[2] and up.count("/orders") == 2, one, again, two)
            if spec == "san-uri": many = secure(port, at, k, "many"); check("mtls:san-uri: two names are none: 400", many[0] == 400, many)
            n = up.count("/orders"); none = secure(port, at, k); check("mtls: without a certificate no connection", none[0] == 0 and up.count("/orders") == n, none)
def b64(data): return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
def raw_signature(der):
    """r and s of an ECDSA signature, 32 bytes each."""
    n = der[3]; r, s = der[4:4 + n], der[6 + n:]; return b"".join(x.lstrip(b"\0").rjust(32, b"\0") for x in (r, s))
def jwt():
    d = tempfile.mkdtemp(); at = lambda name: os.path.join(d, name); secret = b"0123456789abcdef0123456789abcdef"; open(at("hs"), "wb").write(secret)
    for name, args in (("rs", ["RSA", "-pkeyopt", "rsa_keygen_bits:2048"]), ("es", ["EC", "-pkeyopt", "ec_paramgen_curve:P-256"]), ("ed", ["ed25519"])):
        openssl("genpkey", "-algorithm", *args, "-out", at(name + ".key")); openssl("pkey", "-in", at(name + ".key"), "-pubout", "-out", at(name))
    def sign(alg, message):
        if alg == "HS256": return hmac.new(secret, message, hashlib.sha256).digest()
        open(at("message"), "wb").write(message)
        if alg == "EdDSA": return openssl("pkeyutl", "-sign", "-rawin", "-inkey", at("ed.key"), "-in", at("message"))
        made = openssl("dgst", "-sha256", "-sign", at({"RS256": "rs.key", "ES256": "es.key"}[alg]), at("message")); return raw_signature(made) if alg == "ES256" else made
    def token(alg, signed_by=None, **claims):
        message = b".".join(b64(json.dumps(part).encode()).encode() for part in ({"alg": alg, "typ": "JWT"}, {"exp": int(time.time()) + 600, **claims}))
        return (message + b".").decode() + (b64(sign(signed_by or alg, message)) if alg != "none" else "")
    with Flaky() as up:
        keys = ", ".join(f'"{at(n)}"' for n in ("hs", "rs", "es", "ed")); port = free_port()
        with serve_config(toml(f'[upstream]\nurls = ["http://127.0.0.1:{up.port}"]\n[policy]\nscope = "jwt:sub"\n[jwt]\nkeys = [{keys}]\nissuer = "us"\n'), port):
            ask = lambda k, t: call(port, "POST", "/orders", k, headers={"Authorization": f"Bearer {t}"})
            for alg in ("HS256", "RS256", "ES256", "EdDSA"):
                k = new(); n = up.count("/orders"); a = ask(k, token(alg, sub="ada", iss="us")); b = ask(k, token(alg, sub="ada", iss="us", jti=new())); c = ask(k, token(alg, sub="bob", iss="us"))
                check(f"jwt {alg}: another token of one subject replays, another subject runs", a[0] == b[0] == c[0] == 201 and a[2] == b[2] != c[2] and up.count("/orders") - n == 2, a, b, c)
            n = up.count("/orders"); forged = token("HS256", sub="ada", iss="us"); head, claims, signature = forged.split(".")
            for name, t in (("expired", token("ES256", sub="a", iss="us", exp=int(time.time()) - 600)), ("of another issuer", token("ES256", sub="a", iss="them")), ("without the claim", token("ES256", iss="us")),
                            ("with alg none", token("none", sub="a", iss="us")), ("with a claim that is a list", token("ES256", sub=["a"], iss="us")), ("with other claims", ".".join([head, b64(json.dumps({"sub": "eve", "iss": "us", "exp": 9999999999}).encode()), signature])),
                            ("not yet valid", token("ES256", sub="a", iss="us", nbf=int(time.time()) + 600)), ("signed by another key", token("RS256", signed_by="HS256", sub="a", iss="us")), ("none at all", "x")):
                a = ask(new(), t); check(f"jwt {name}: 400, not run", a[0] == 400 and code(a) == "idempotency_scope_missing" and up.count("/orders") == n, a)
        with serve_config(toml(f'trusted_proxies = ["127.0.0.1"]\n[upstream]\nurls = ["http://127.0.0.1:{up.port}"]\n[policy]\nscope = "jwt:sub"\n[jwt]\nverified_by = "gateway"\n'), (port := free_port())):
            a = call(port, "POST", "/orders", new(), headers={"Authorization": f"Bearer {token('none', sub='ada')}"}); check("jwt verified by a trusted gateway: believed", a[0] == 201, a)
def path_scope():
    with Flaky() as up, serve_config(toml(f'[upstream]\nurls = ["http://127.0.0.1:{up.port}"]\n[[route]]\npath = "/t/{{tenant}}/orders"\nscope = "path:tenant"\n'), (port := free_port())):
        sock = json.loads(call(port, "POST", "/t/a/orders", k := new())[2]); b = call(port, "POST", "/t/b/orders", k)
        check("path:tenant: one key, two tenants, two operations", b[0] == 201 and json.loads(b[2])["id"] != sock["id"], b)
def unix_sockets():
    d = tempfile.mkdtemp(); front, back = os.path.join(d, "front"), os.path.join(d, "back")
    with Flaky() as up, Proxy([up.port], store(), "--listen", f"unix:{back}"), Proxy([f"unix:{back}"], store(), "--listen", f"unix:{front}") as proxy:
        a = over_unix(front, "POST", "/orders", {}, [("Idempotency-Key", k := new())]); b = over_unix(front, "POST", "/orders", {}, [("Idempotency-Key", k)])
        check("unix:/ on both sides: runs, replays", a[0] == b[0] == 201 and a[1] == b[1] and up.count("/orders") == 1, a, b); proxy.kill(signal.SIGTERM)
        check("unix:/ the socket goes with the process", not os.path.exists(front))
def http2():
    with Flaky() as up, Proxy([up.port], store()) as back, Proxy([f"h2c://127.0.0.1:{back.port}"], store()) as front:
        k = new(); a, b = (call(front.port, "POST", "/orders", k) for _ in "ab"); check("HTTP/2 between two proxies: runs, replays", a[0] == b[0] == 201 and a[2] == b[2] and up.count("/orders") == 1, a, b)
        headers = {n.lower(): v for n, v in json.loads(call(front.port, "GET", "/headers")[2])}; check("HTTP/2: the host passes as it came", headers["host"] == f"127.0.0.1:{front.port}", headers)
        sent = [call(front.port, "POST", "/slow?ms=700", None, timeout=60)[0] for _ in range(1)]; out = []; ts = [threading.Thread(target=lambda: out.append(call(front.port, "POST", "/slow?ms=700", new())[0])) for _ in range(8)]
        [t.start() for t in ts]; [t.join() for t in ts]; check("HTTP/2: many requests share a connection", out == [201] * 8 and sent == [201], out)
        u = call(front.port, "POST", "/orders", None, b"x" * (3 << 20)); check("HTTP/2: 3 MiB stream through", json.loads(u[2]).get("bytes") == 3 << 20, u[0])
        back.kill(); c = call(front.port, "POST", "/orders", new()); check("HTTP/2: an upstream that is gone: 502", c[0] == 502, c)
def host_and_pool():
    with Flaky() as up, serve_config(toml(f'[upstream]\nurls = ["http://127.0.0.1:{up.port}"]\nhost = "upstream"\nkeyed_connections = "new"\nidentity_for_keys = true\nmax_connections = 2\n'), (port := free_port())):
        headers = {n.lower(): v for n, v in json.loads(call(port, "GET", "/headers", headers={"Accept-Encoding": "gzip"})[2])}; check("host = upstream", headers["host"] == f"127.0.0.1:{up.port}", headers)
        out = []; ts = [threading.Thread(target=lambda: out.append(call(port, "POST", "/slow?ms=300", new())[0])) for _ in range(4)]; [t.start() for t in ts]; [t.join() for t in ts]
        check("max_connections: requests wait for one", out == [201] * 4, out)
        a = call(port, "POST", "/orders", new(), headers={"Accept-Encoding": "gzip"}); check("keyed_connections = new: runs", a[0] == 201, a)
def health():
    with Flaky() as up, Flaky() as down:
        path = toml(f'[upstream]\nurls = ["http://127.0.0.1:{up.port}", "http://127.0.0.1:{down.port}"]\nhealth = "/count"\n'); admin, port = free_port(), free_port()
        with Process().start([BINARY, "proxy", "--config", path, "--listen", f"127.0.0.1:{port}", "--store", store(), "--admin", f"127.0.0.1:{admin}"], port):
            gauge = lambda who: f'oncekey_proxy_upstream_up{{upstream="http://127.0.0.1:{who.port}"}}'
            read = lambda: call(admin, "GET", "/metrics")[2].decode(); check("health: both up", all(f"{gauge(w)} 1" in until(read, lambda t: gauge(w) in t) for w in (up, down)))
            down.kill(); check("health: two failures take one out", f"{gauge(down)} 0" in until(read, lambda t: f"{gauge(down)} 0" in t)); check("health: still ready", call(admin, "GET", "/readyz")[0] == 200)
            up.kill(); a = until(lambda: call(admin, "GET", "/readyz"), lambda a: a[0] == 503); check("health: all out: not ready", a[2] == b'{"reason":"upstream_down"}', a)
            with Flaky(up.port): b = until(lambda: call(admin, "GET", "/readyz"), lambda a: a[0] == 200); check("health: one success brings it back", b[0] == 200, b)
def command():
    up, port = free_port(), free_port(); flaky = [sys.executable, os.path.join(HERE, "flaky.py"), str(up)]
    args = [BINARY, "proxy", "--listen", f"127.0.0.1:{port}", "--upstream", f"http://127.0.0.1:{up}", "--store", store(), "--"]
    with Process().start(args + flaky, port) as proxy:
        check("-- COMMAND: started first", call(port, "POST", "/orders", new())[0] == 201); left = proxy.kill(signal.SIGTERM)
        check("-- COMMAND: ended after the proxy", left == 0 and call(up, "GET", "/count")[0] == 0, left)
    run = subprocess.run(args + ["false"], capture_output=True, text=True, timeout=60); check("-- COMMAND: one that ends at once: exit 1", run.returncode == 1 and "false ended" in run.stderr, run)
    with Process().start(args + ["sh", "-c", " ".join(flaky) + " & sleep 2; kill $!"], port) as proxy: check("-- COMMAND: one that ends later ends the proxy: exit 1", proxy.process.wait(60) == 1, proxy.said())
    # Whatever ends the proxy, its server does not stay behind.
    pidfile = os.path.join(tempfile.mkdtemp(), "pid"); stays = ["sh", "-c", f"echo $$ > {pidfile}; exec {' '.join(flaky)}"]; silent = ["sh", "-c", f"echo $$ > {pidfile}; exec sleep 600"]
    def pid(): return int(until(lambda: open(pidfile).read() if os.path.exists(pidfile) else "", bool))
    def gone(p):
        try: return open(f"/proc/{p}/stat").read().rsplit(")", 1)[1].split()[0] == "Z"
        except OSError: return True
    with Process().start(args + silent, port, wait=False) as proxy: p = pid(); left = proxy.kill(signal.SIGTERM); check("-- COMMAND: a signal before it is up ends it: exit 0", left == 0 and until(lambda: gone(p), bool), left)
    os.unlink(pidfile)
    with socket.create_server(("127.0.0.1", port)): run = subprocess.run(args + stays, capture_output=True, text=True, timeout=60); p = pid(); check("-- COMMAND: a start that fails after it ends it: exit 1", run.returncode == 1 and until(lambda: gone(p), bool), run)
    os.unlink(pidfile)
    with Process().start(args + stays, port) as proxy:
        p = pid(); slow = threading.Thread(target=call, args=(port, "POST", "/slow?ms=20000", new())); slow.start(); until(lambda: json.loads(call(up, "GET", "/count")[2]).get("POST /slow"), lambda n: n == 1)
        proxy.process.send_signal(signal.SIGTERM); until(lambda: call(port, "GET", "/count")[0], lambda status: status == 0)
        left = proxy.kill(signal.SIGTERM); check("-- COMMAND: a second signal ends it too: exit 130", left == 130 and until(lambda: gone(p), bool), left); slow.join()
def upgraded_idle():
    def mute(c, head):
        c.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n"); c.recv(1)
    listener = socket.create_server(("127.0.0.1", 0))
    def loop():
        while True:
            try: c, _ = listener.accept()
            except OSError: return
            c.recv(65536); mute(c, b"")
    threading.Thread(target=loop, daemon=True).start()
    with listener, serve_config(toml(f'[upstream]\nurls = ["http://127.0.0.1:{listener.getsockname()[1]}"]\n[limits]\ntunnel_idle = "500ms"\n'), (port := free_port())), socket.create_connection(("127.0.0.1", port), 30) as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"); out = b""
        while more := s.recv(65536): out += more
        check("a tunnel that carries nothing ends", b" 101 " in out, out)
ROWS = {"client-tls": client_tls, "mtls": mtls, "jwt": jwt, "path": path_scope, "unix": unix_sockets, "http2": http2, "upstreams": host_and_pool, "health": health, "command": command, "tunnel": upgraded_idle}
