"""Sends one operation until it is settled: the same key and the same bytes in each try, and no try
after a final answer. The rules are those of docs/clients.md in github.com/oncekey/oncekey.
Copy this file. Python 3.9 or later, the standard library only. MIT OR Apache-2.0."""
import hashlib, http.client, itertools, json, os, random, re, time
from contextlib import closing, suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Callable, Optional
from urllib.parse import urlsplit

AGAIN = {"idempotency_store_unavailable", "upstream_unreachable", "idempotency_overloaded",
         "idempotency_body_unreadable", "idempotency_body_timeout"}
STOP = {"idempotency_outcome_unknown": "unknown", "idempotency_response_not_stored": "notStored",
        "idempotency_key_mismatch": "bug", "idempotency_key_invalid": "bug", "idempotency_key_missing": "bug",
        "idempotency_scope_missing": "bug", "idempotency_body_too_large": "bug"}

@dataclass(frozen=True)
class Policy:
    """When to stop and how long to wait, in seconds. `try_timeout` bounds each read of the socket."""
    tries: int = 5
    deadline: float = 60
    try_timeout: float = 35  # the server answers within 30 s
    backoff: float = 0.1
    max_backoff: float = 5
    max_wait: float = 30
    ttl: float = 24 * 3600
    margin: float = 3600
    header: str = "Idempotency-Key"
    replayed: str = "Idempotent-Replayed"
    now: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep

@dataclass
class Sent:
    """`result` is
    done          the answer is final, be it 201 or 404
    unknown       the operation may have happened or not: look it up, never send it under a new key
    notStored     the operation happened, but its response is not kept: fetch the outcome
    bug           this client is wrong; the body explains it
    unauthorized  nothing happened: refresh the credentials, then send again with the same key
    gaveUp        not settled: send again later with the same key (status 0: no answer came)
    expired       not sent: the server may have forgotten the key by now; look the operation up"""
    result: str
    key: str
    tries: int
    status: int = 0
    headers: http.client.HTTPMessage = field(default_factory=http.client.HTTPMessage)
    body: bytes = b""

def send(url: Optional[str], body: bytes = b"", *, key: Optional[str] = None, method: str = "POST",
         headers: Optional[dict] = None, store: Optional[Path] = None, policy: Policy = Policy()) -> Sent:
    """With `store`, a directory, the operation is on disk before its first try, and `send(None, key=key, store=store)`
    repeats it after a restart. Call `forget` after the outcome is recorded. Credentials in `headers` are not saved."""
    if not isinstance(body, bytes):
        raise TypeError("oncekey: the body is bytes; a stream cannot be sent twice, text is encoded once by its owner")
    given = {name.lower(): value for name, value in (headers or {}).items()}
    key = key or given.get(policy.header.lower()) or new_key(policy.now())
    saved = store and _path(store, key)
    if saved and saved.exists():
        operation = json.loads(saved.read_text())
    elif url is None:
        raise ValueError("oncekey: no URL, and the store does not have this key")
    else:
        operation = {"key": key, "url": url, "method": method, "body": body.hex(), "at": policy.now(),
                     "type": given.get("content-type", "application/json")}
        saved and _save(saved, json.dumps(operation))
    start, failed = policy.now(), 0
    if start - operation["at"] > policy.ttl - policy.margin:
        return Sent("expired", key, 0)
    fields = {**given, policy.header.lower(): key, "content-type": operation["type"], "connection": "close"}
    for tries in itertools.count(1):
        answer = _attempt(operation, fields, policy.try_timeout)
        verdict, asked = _decide(*answer, policy.replayed) if answer else ("again", None)
        failed += verdict == "again"
        if verdict in ("again", "locked"):
            ceiling = min(policy.max_backoff, policy.backoff * (2 ** min(tries - 1, 30) if asked is None else 1))
            wait = min(asked or 0, policy.max_wait) + random.random() * ceiling
            if failed < policy.tries and policy.now() - start + wait <= policy.deadline:
                policy.sleep(wait)
                continue
            verdict = "gaveUp"
        return Sent(verdict, key, tries, *(answer or ()))

def _attempt(operation, fields, timeout):
    """One try: status, headers, body; None when no complete answer came."""
    url = urlsplit(operation["url"])
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    target = (url.path or "/") + ("?" + url.query if url.query else "")
    with suppress(OSError, http.client.HTTPException), closing(kind(url.netloc, timeout=timeout)) as connection:
        connection.request(operation["method"], target, bytes.fromhex(operation["body"]), fields)
        response = connection.getresponse()
        # http.client accepts a head that broke off as complete; the length of the body is then missing.
        if response.chunked or response.length is not None:
            return response.status, response.headers, response.read()

def _decide(status, headers, body, replayed):
    """The result, or "again" or "locked", and how long the server asks to wait. The first matching line decides."""
    problem = None
    if status >= 400 and headers.get_content_type() == "application/problem+json":
        with suppress(ValueError):
            problem = json.loads(body)
    code = str(problem.get("code")) if isinstance(problem, dict) else ""
    if headers.get(replayed) == "true":
        return "done", None
    if code == "idempotency_key_locked":
        return "locked", _asked(headers, problem.get("retryAfterMs"))
    if code in STOP or (status == 401 and code not in AGAIN):
        return STOP.get(code, "unauthorized"), None
    return ("again", _asked(headers)) if code in AGAIN or status in (408, 425, 429) or status >= 500 else ("done", None)

def _asked(headers, milliseconds=None):
    """Seconds to wait, if the server asks for it. A date counts from the Date of the answer."""
    if type(milliseconds) in (int, float) and milliseconds >= 0:
        return milliseconds / 1000
    after = headers.get("Retry-After", "").strip()
    if re.fullmatch("[0-9]+", after):
        return float(after)
    try:
        wait = (parsedate_to_datetime(after) - parsedate_to_datetime(headers.get("Date", ""))).total_seconds()
        return wait if wait >= 0 else None
    except (TypeError, ValueError):
        return None

def new_key(now: Optional[float] = None) -> str:
    """A UUID, version 7."""
    value = int((time.time() if now is None else now) * 1000) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) & ~(0x3 << 62) | 0x7 << 76 | 0x2 << 62
    return re.sub("(.{8})(.{4})(.{4})(.{4})", r"\1-\2-\3-\4-", f"{value:032x}")

def pending(store: Path) -> list:
    """The keys in the store."""
    return [json.loads(path.read_text())["key"] for path in Path(store).glob("*.json")]

def forget(store: Path, key: str) -> None:
    _path(store, key).unlink(missing_ok=True)

def _path(store, key):
    return Path(store) / (hashlib.sha256(key.encode()).hexdigest() + ".json")

def _save(path, text):
    """Writes a file so that it is complete or absent. It is on disk on return, and private like the order in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb", buffering=0) as file:
        file.write(text.encode())
        os.fsync(file.fileno())
    part.replace(path)
    if os.name == "posix":  # elsewhere a directory cannot be opened
        directory = os.open(path.parent, os.O_RDONLY)
        os.fsync(directory), os.close(directory)
