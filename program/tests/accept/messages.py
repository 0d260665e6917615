"""Rows about messages: wrong requests of clients, wrong responses of upstreams."""
from rig import *
import re

def statuses(out): return [int(s) for s in re.findall(rb"HTTP/1\.[01] (\d+)", out)]
def answering(reply):
    """An upstream that answers each connection with these bytes and closes it; what came is in `seen`."""
    seen = []
    def handle(c, head):
        seen.append(head)
        while head.lower().find(b"transfer-encoding: chunked") >= 0 and not seen[-1].endswith(b"\r\n\r\n" if b"\r\n0\r\n" in seen[-1] else b"\0"):
            more = c.recv(65536)
            if not more: break
            seen[-1] += more
        c.sendall(reply)
    return serve(handle), seen
OK = b"HTTP/1.1 200 OK\r\n"

def heads():
    listener, seen = answering(OK + b"Connection: close\r\nContent-Length: 2\r\n\r\nok")
    with listener, Proxy([listener.getsockname()[1]], store()) as proxy:
        host, chunked = "Host: h\r\nConnection: close\r\n", "2\r\n{}\r\n0\r\n\r\n"
        for name, text in (
            *((f"Transfer-Encoding: {te}", f"POST / HTTP/1.1\r\n{host}KEYTransfer-Encoding: {te}\r\n\r\n{chunked}") for te in ("chunked, chunked", "gzip, chunked", "identity, chunked", "identity", "chunked, gzip", "chunked;q=1", "xchunked")),
            ("two Transfer-Encodings", f"POST / HTTP/1.1\r\n{host}KEYTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}"),
            ("no Host", "POST / HTTP/1.1\r\nConnection: close\r\nKEYContent-Length: 2\r\n\r\n{}"),
            *((f"Host: {h}", f"POST / HTTP/1.1\r\nHost: {h}\r\nConnection: close\r\nKEYContent-Length: 2\r\n\r\n{{}}") for h in ("a b", "a/b", "u@h")),
            ("a target without a slash", f"POST a HTTP/1.1\r\n{host}KEYContent-Length: 2\r\n\r\n{{}}"),
            ("POST *", f"POST * HTTP/1.1\r\n{host}KEYContent-Length: 2\r\n\r\n{{}}"),
            *((f"a malformed chunk {chunk!r}", f"POST / HTTP/1.1\r\n{host}KEYTransfer-Encoding: chunked\r\n\r\n{chunk}") for chunk in ("2;a\n{}\r\n0\r\n\r\n", "2 2\r\n{}\r\n0\r\n\r\n", "10000000000000002\r\n{}\r\n0\r\n\r\n", "2\r\n{}XX0\r\n\r\n")),
        ):
            for key in ("", f"Idempotency-Key: {new()}\r\n"):
                out = raw(proxy.port, text.replace("KEY", key))[1]; check(f"heads: {name}{' with a key' if key else ''}: 400", statuses(out)[:1] == [400], out)
        check("heads: none of them ran", not any(b"\r\n\r\n{}" in s or b"\r\n0\r\n\r\n" in s for s in seen), seen)
        for name, text in (("chunked in other spellings", f"POST / HTTP/1.1\r\n{host}Transfer-Encoding: \tChunked \r\n\r\n{chunked}"), ("HTTP/1.0 without a Host", "POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}"), ("OPTIONS *", f"OPTIONS * HTTP/1.1\r\n{host}\r\n"), ("an empty Host", "POST / HTTP/1.1\r\nHost: \r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}")):
            out = raw(proxy.port, text)[1]; check(f"heads: {name}: passes", statuses(out) == [200], out)
        seen.clear(); raw(proxy.port, f"POST / HTTP/1.1\r\n{host}Trailer: Oncekey-Attempt, Forwarded, X-Sum\r\nContent_Length: 9\r\nTransfer_Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\nOncekey-Attempt: 9\r\nForwarded: for=9\r\nX-Sum: 1\r\n\r\n")
        last = seen[-1].lower().split(b"\r\n\r\n", 1) if seen else [b"", b""]
        check("heads: trailers of a client: those that are for the proxy do not arrive", b"x-sum: 1" in last[1] and b"oncekey-" not in last[1] and b"forwarded" not in last[1], seen)
        for count, want in ((100, 200), (101, 431)):
            out = raw(proxy.port, "GET / HTTP/1.1\r\n" + host + "".join(f"X-{n}: 1\r\n" for n in range(count - 2)) + "\r\n")[1]; check(f"heads: {count} headers: {want}", statuses(out) == [want], out)
        check("heads: lengths with an underscore do not arrive", b"content_length" not in last[0] and b"transfer_encoding" not in last[0], seen)
def late():
    with Flaky() as up, serve_config(toml(f'[upstream]\nurls = ["http://127.0.0.1:{up.port}"]\n[limits]\nheader_timeout = "1s"\nrequest_body_idle = "1s"\n'), (port := free_port())):
        for name, text, want in (("a head that does not end: 408", "POST / HTTP/1.1\r\nHost: h\r\n", [408]), ("a second one: 408", "GET /count HTTP/1.1\r\nHost: h\r\n\r\n", [200]), ("a body with a key: 408", f"POST /orders HTTP/1.1\r\nHost: h\r\nIdempotency-Key: {new()}\r\nContent-Length: 5\r\n\r\nab", [408]), ("a connection that says nothing ends", "", [])):
            out = raw(port, text)[1]; check(f"late: {name}", statuses(out) == want, out)
        with socket.create_connection(("127.0.0.1", port), 10) as s:
            s.sendall(b"GET /count HTTP/1.1\r\nHost: h\r\n\r\n"); out = b""
            while not out.endswith(b"}"): out += s.recv(65536)
            s.sendall(b"GET /co"); s.settimeout(10)
            while more := s.recv(65536): out += more
            check("late: the second head of a connection: 408", statuses(out) == [200, 408], out)
def liars():
    def asked(reply, *flags):
        """The answers to a request with a key, to its retry, and to one without a key."""
        listener, seen = answering(reply)
        with listener, Proxy([listener.getsockname()[1]], store(), *flags) as proxy:
            k = new(); return [call(proxy.port, "POST", "/x", k), call(proxy.port, "POST", "/x", k), call(proxy.port, "POST", "/x")], len(seen)
    for name, reply in (("two lengths", OK + b"Content-Length: 2\r\nContent-Length: 4\r\n\r\nokok"), ("a negative length", OK + b"Content-Length: -1\r\n\r\nok"), ("another coding", OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"), ("another coding alone", OK + b"Transfer-Encoding: gzip\r\n\r\nabc"),
                        ("a folded header", OK + b"X: a\r\n b\r\nContent-Length: 2\r\n\r\nok"), ("a NUL", OK + b"X: a\0\r\nContent-Length: 2\r\n\r\nok"), ("a head without an end", OK + b"X: 1\r\n"), ("HTTP/0.9", b"<html>"), ("nothing", b""), ("a head over 64 KiB", OK + b"X: " + b"a" * 65600 + b"\r\nContent-Length: 2\r\n\r\nok"), ("300 headers", OK + b"".join(b"x%d: 1\r\n" % i for i in range(300)) + b"\r\n"), ("status 099", b"HTTP/1.1 099 X\r\nContent-Length: 0\r\n\r\n")):
        (a, b, c), ran = asked(reply)
        check(f"liars: {name}: 502 unknown, 409 unknown; without a key 502", (a[0], code(a), b[0], code(b), c[0], code(c), ran) == (502, "idempotency_outcome_unknown", 409, "idempotency_outcome_unknown", 502, "upstream_failed", 2), a, b, c, ran)
    for name, reply, body in (("one length twice", OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok", b"ok"), ("one length in a list", OK + b"Content-Length: 2, 2\r\n\r\nok", b"ok"), ("a length beside chunks", OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", b"abc"), ("two hundred 103", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 200 + OK + b"Content-Length: 2\r\n\r\nok", b"ok"),
                              ("204 with a body", b"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nevil", b""), ("304 with a body", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nevil", b""), ("Oncekey-Outcome twice", OK + b"Oncekey-Outcome: executed\r\nOncekey-Outcome: not-executed\r\nContent-Length: 2\r\n\r\nok", b"ok")):
        (a, b, c), ran = asked(reply)
        check(f"liars: {name}: stored, replayed", a[2] == b[2] == c[2] == body and a[0] == b[0] == c[0] and ran == 2 and "," not in c[1].get("content-length", ""), a, b, c, ran)
    # More than the response: it must not become the next one.
    behind = threading.Event()
    def more(c, head):
        while head:
            c.sendall(OK + b"Content-Length: 2\r\n\r\nok")
            try: c.sendall(OK + b"Content-Length: 4\r\n\r\nevil"); behind.set(); head = c.recv(65536)
            except OSError: return behind.set()
    with serve(more) as listener, Proxy([listener.getsockname()[1]], store()) as proxy:
        got = []
        for i in range(10): behind.clear(); got.append(call(proxy.port, "POST", "/x", new() if i % 2 else None)[2]); behind.wait(30); time.sleep(.1)
        check("liars: bytes behind a response never become the next", got == [b"ok"] * 10, got)
    listener, _ = answering(OK + b"Trailer: X-Sum, Oncekey-Outcome\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\nOncekey-Outcome: not-executed\r\n\r\n")
    with listener, Proxy([listener.getsockname()[1]], store()) as proxy:
        for key in (f"Idempotency-Key: {(k := new())}\r\n", f"Idempotency-Key: {k}\r\n", ""):
            out = raw(proxy.port, f"POST / HTTP/1.1\r\nHost: h\r\nTE: trailers\r\nConnection: close, TE\r\n{key}Content-Length: 0\r\n\r\n")[1].lower()
            check("liars: trailers come with the response and its replay, without those for the proxy", b"0\r\nx-sum: 1\r\n\r\n" in out and b"oncekey-outcome: " not in out, out)
    listener, _ = answering(OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 1_000_000 + b"0\r\n\r\n")
    with listener, Proxy([listener.getsockname()[1]], store()) as proxy:
        def peak(): return int([l for l in open(f"/proc/{proxy.process.pid}/status") if l.startswith("VmHWM")][0].split()[1]) >> 10
        idle = peak(); got = call(proxy.port, "POST", "/x", new()); most = peak()
        check("liars: a million chunks of one byte: at most 60 MiB more than idle", got[2] == b"x" * 1_000_000 and most - idle < 60, got[0], len(got[2]), idle, most)
ROWS = {"heads": heads, "late": late, "liars": liars}
