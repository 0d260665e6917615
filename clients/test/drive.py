"""Drives oncekey.py for check.py, which describes the modes."""
import io, json, os, sys, tempfile
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "python"))
import oncekey

mode, *arguments = sys.argv[1:]


def cases():
    for line in sys.stdin:
        case, waits = json.loads(line), []
        policy = oncekey.Policy(now=lambda: 1.7e9 + sum(waits), sleep=waits.append, try_timeout=case["tryTimeout"])
        sent = oncekey.send(case["url"], case["body"].encode(), key=case.get("key"), policy=policy)
        print(json.dumps({"result": sent.result, "waitsMs": [wait * 1000 for wait in waits], "key": sent.key,
                          "tries": sent.tries}), flush=True)


def save(path, data):
    """Writes a file so that it is complete or absent."""
    part = path.with_suffix(".part")
    with open(part, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def orders(url, directory, count):
    """The caller's own record of an operation has its key; the helper's store has the request."""
    directory, policy = Path(directory), replace(oncekey.Policy(), backoff=0.002)
    store = directory / "outbox"
    for n in range(int(count)):
        key, body, done = (directory / f"{n}.{kind}" for kind in ("key", "body", "done"))
        if done.exists():
            continue
        if not key.exists():
            save(key, oncekey.new_key().encode())
        sent = oncekey.send(url, body.read_bytes(), key=key.read_text(), store=store, policy=policy)
        if sent.result != "done":
            raise RuntimeError(f"{n}: {sent.result}")
        save(done, sent.body)
        oncekey.forget(store, sent.key)
        print(n, flush=True)


def old(url):
    with tempfile.TemporaryDirectory() as directory:
        store, start, results = Path(directory), 1.7e9, []
        for target, age in [(url, 0), (None, 23 * 3600), (None, 23 * 3600 + 1)]:
            policy = oncekey.Policy(now=lambda: start + age)
            results.append(oncekey.send(target, b"old python", key="old-python", store=store, policy=policy).result)
        oncekey.forget(store, "old-python")
        print(json.dumps([*results, len(oncekey.pending(store))]))


if mode == "cases":
    cases()
elif mode == "old":
    old(*arguments)
elif mode == "stream":
    oncekey.send(arguments[0], io.BytesIO(b"x"))
else:
    orders(*arguments)
