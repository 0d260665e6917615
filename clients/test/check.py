#!/usr/bin/env python3
"""Runs the clients. usage: check.py SHOP ONCEKEY CLIENT=COMMAND…

Each COMMAND is a driver with the modes
  cases                        reads {"url", "key"?, "body", "tryTimeout"} a line, sends it with a clock that only
                               waits move, and prints {"result", "waitsMs", "key"}
  orders URL DIRECTORY COUNT   sends DIRECTORY/N.body for N below COUNT, keeps its key in N.key and its answer in
                               N.done, prints N; continues where an earlier run was killed
  old URL                      sends "old NAME" under "old-NAME", again from its store after 23 hours, and a second
                               after that; prints the three results and the number of operations left in the store
  stream URL                   tries to send a body that is a stream (not where the types refuse it)
SHOP is the example `shop` of the crate oncekey-client, ONCEKEY the program. ONCEKEY_SEED=N repeats a run."""
import json, os, random, shlex, signal, subprocess, sys, tempfile, threading
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
import link, serve
from shop import Proxied, Shop, rig

SEED = int(os.environ.get("ONCEKEY_SEED") or random.randrange(1 << 32))
ORDERS = int(os.environ.get("ONCEKEY_ORDERS", 250))  # of each client
GENEROUS = 300  # seconds; only a hang takes longer


def driver(command, *arguments, **options):
    return subprocess.Popen([*shlex.split(command), *map(str, arguments)], text=True, stdout=subprocess.PIPE, **options)


def check(condition, *why):
    if not condition:
        raise SystemExit("clients: failed: " + " ".join(map(str, why)))


def play_cases(name, command):
    """Checks every case: the result, the waits, the number of tries, and the same key and bytes in each try."""
    cases = json.loads((HERE.parent / "cases.json").read_text())
    server = serve.Server(0, cases)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    lines = []
    for case in cases:
        silent = {"error": "silent"} in case["answers"]
        lines.append({"url": f"http://127.0.0.1:{server.server_port}/{case['name']}", "tryTimeout": 3 if silent else 35,
                      "body": case.get("body", '{"sku":"tea"}'), **({"key": case["key"]} if "key" in case else {})})
    run = driver(command, "cases", stdin=subprocess.PIPE)
    output, _ = run.communicate("".join(json.dumps(line) + "\n" for line in lines), timeout=GENEROUS)
    check(run.returncode == 0, name, "exits with", run.returncode)
    output = [json.loads(line) for line in output.splitlines()]
    check(len(output) == len(cases), name, "played", len(output), "of", len(cases))
    for case, line, got in zip(cases, lines, output):
        arrived, expect = server.arrived[case["name"]], case["expect"]
        what = f"{name}: {case['name']}: {got} after {arrived}"
        check(got["result"] == expect["result"] and len(arrived) == expect["sent"], what)
        check(len(got["waitsMs"]) == len(expect["waitsMs"]), what)
        for wait, (low, high) in zip(got["waitsMs"], expect["waitsMs"]):
            check(low <= wait <= high, what)
        for request in arrived:
            check(request == {"method": "POST", "key": case.get("key", got["key"]), "type": "application/json",
                              "body": line["body"]}, what)
    check(len({line["key"] for line in output}) == len(cases), name, "used a key twice")
    print(f"clients: {name}: {len(cases)} cases")


def verdicts(name, command, shop):
    """Checks the results with a slow, a busy, a closed and a dying handler, over a link without faults."""
    expect = {"slow": ("done", 1), "busy": ("done", 2), "closed": ("done", 2), "panic": ("unknown", 1)}
    run = driver(command, "cases", stdin=subprocess.PIPE)
    lines = [{"url": f"{shop.url}/{path}", "body": name, "tryTimeout": 10} for path in expect]
    output, _ = run.communicate("".join(json.dumps(line) + "\n" for line in lines), timeout=GENEROUS)
    for (path, (result, runs)), line in zip(expect.items(), output.splitlines()):
        got = json.loads(line)
        executed = [key for key, _ in shop.executed("/" + path) if key == got["key"]]
        check((got["result"], len(executed)) == (result, runs), name, path, got, executed)
    check(len(output.splitlines()) == len(expect), name, "stopped early")
    print(f"clients: {name}: slow, busy, closed and dying handlers")


def killed_between_send_and_answer(name, command, shop, directory):
    """Kills the client after the execution and before the answer: the same key again, a replay, one execution."""
    body = f"{name}: killed between send and answer"
    (directory / "0.body").write_text(body)
    run = driver(command, "orders", shop.url + "/slow", directory, 1)
    while not any(body == ran for _, ran in shop.executed("/slow")):
        check(run.poll() is None, name, "ended before its order ran")
    run.kill()
    run.communicate(timeout=GENEROUS)
    check(not (directory / "0.done").exists(), name, "had its answer before it was killed")
    key = (directory / "0.key").read_text()
    run = driver(command, "orders", shop.url + "/slow", directory, 1)
    run.communicate(timeout=GENEROUS)
    check(run.returncode == 0, name, "exits with", run.returncode)
    keys = [ran for ran, what in shop.executed("/slow") if what == body]
    check(keys == [key], name, "ran under", keys, "and has", key)
    check("id" in json.loads((directory / "0.done").read_text()), name, "has no replay")
    print(f"clients: {name}: killed between send and answer")


def a_bad_link(name, command, shop, directory, random):
    """Drops one connection in three, and kills the client after some orders: no order is lost or runs twice."""
    for n in range(ORDERS):
        (directory / f"{n}.body").write_text(f"{name} {n}")
    bad, kills = link.Link(shop.address, random.random()), 0
    while True:
        # A run that gave up an order is started again, too.
        run = driver(command, "orders", bad.url + "/orders", directory, ORDERS, stderr=subprocess.DEVNULL)
        watchdog = threading.Timer(GENEROUS, run.kill)
        watchdog.start()
        for _ in range(random.randrange(1, ORDERS // 2)):
            if not run.stdout.readline():
                break
        else:
            run.send_signal(signal.SIGKILL)
        run.communicate()
        check(watchdog.is_alive(), name, "hangs")
        watchdog.cancel()
        kills += run.returncode != 0
        check(kills < 100, name, "does not come to an end")
        if run.returncode == 0:
            break
    ran = [(key, body) for key, body in shop.executed() if body.startswith(f"{name} ")]
    keys = {body: key for key, body in ran}
    check(len(ran) == ORDERS == len(keys) == len(set(keys.values())), name, len(ran), "runs of", len(keys), "orders")
    for n in range(ORDERS):
        check(keys[f"{name} {n}"] == (directory / f"{n}.key").read_text(), name, n, "ran under another key")
        check("id" in json.loads((directory / f"{n}.done").read_text()), name, n, "has no answer")
    print(f"clients: {name}: {ORDERS} orders over a bad link, {kills} restarts")


def failing_upstream(name, command, directory):
    """An upstream that fails in every way that the proxy distinguishes: each operation has the expected result and runs."""
    expect = {"/orders": ("done", 1), "/slow?ms=500": ("done", 1), "/reset": ("unknown", 1), "/half": ("unknown", 1),
              "/not-executed?times=2": ("done", 3), "/status/429?times=2": ("done", 3)}
    port, keys = rig.free_port(), rig.store()
    with rig.Flaky(port) as upstream, rig.Proxy([port], keys, "--answer-within", "1s") as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        run = driver(command, "cases", stdin=subprocess.PIPE)
        lines = [{"url": url + path, "body": name, "tryTimeout": 10} for path in expect]
        output, _ = run.communicate("".join(json.dumps(line) + "\n" for line in lines), timeout=GENEROUS)
        check(len(output.splitlines()) == len(expect), name, "stopped early")
        for (path, (result, runs)), line in zip(expect.items(), output.splitlines()):
            got, ran = json.loads(line)["result"], upstream.count(path.split("?")[0])
            check((got, ran) == (result, runs), name, "through the proxy:", path, got, ran)
        # The answer takes longer than the proxy lets a client wait: the client must retry, and gets the replay.
        (directory / "0.body").write_text(f"{name}: slow")
        run = driver(command, "orders", url + "/slow?ms=2500", directory, 1)
        run.communicate(timeout=GENEROUS)
        check(run.returncode == 0 and upstream.count("/slow") == 2, name, "slow:", run.returncode, upstream.count("/slow"))
        # The upstream is down when the order is sent, and starts again after the first refusal.
        upstream.kill()
        (directory / "1.body").write_text(f"{name}: restarted")
        run = driver(command, "orders", url + "/orders", directory, 2)
        rig.until(proxy.said, lambda said: '"status":502' in said)
        check(run.poll() is None and not (directory / "1.done").exists(), name, "did not wait for the upstream")
        with rig.Flaky(port) as upstream:
            run.communicate(timeout=GENEROUS)
            check(run.returncode == 0 and upstream.count("/orders") == 1, name, "restarted:", run.returncode)
    print(f"clients: {name}: an upstream that fails behind the proxy")


def keeps_operations(name, command, shop):
    """The helper's own store repeats an operation for 23 hours, and deletes it on request."""
    run = driver(command, "old", shop.url + "/orders")
    output, _ = run.communicate(timeout=GENEROUS)
    check(run.returncode == 0, name, "exits with", run.returncode)
    check(json.loads(output) == ["done", "done", "expired", 0], name, output)
    ran = [order for order in shop.executed() if order == (f"old-{name}", f"old {name}")]
    check(len(ran) == 1, name, "ran", ran)
    print(f"clients: {name}: keeps operations for 23 hours")


def refuses_streams(name, command, shop):
    run = driver(command, "stream", shop.url + "/orders", stderr=subprocess.PIPE)
    _, said = run.communicate(timeout=GENEROUS)
    check(run.returncode != 0 and "stream" in said, name, "sends a stream:", said)
    print(f"clients: {name}: refuses a stream")


def against(server, name, command, shop):
    verdicts(name, command, shop)
    with tempfile.TemporaryDirectory() as directory:
        killed_between_send_and_answer(name, command, shop, Path(directory))
    with tempfile.TemporaryDirectory() as directory:
        a_bad_link(name, command, shop, Path(directory), random.Random(f"{SEED} {server} {name}"))


def main():
    print(f"clients: ONCEKEY_SEED={SEED} repeats this run")
    rig.BINARY, shops = os.path.abspath(sys.argv[2]), {}
    clients = [argument.split("=", 1) for argument in sys.argv[3:]]
    try:
        shops["layer"] = Shop(sys.argv[1])
        shops["proxy"] = Proxied(sys.argv[1])
        for name, command in clients:
            play_cases(name, command)
            if name != "rust":  # `Bytes` is not a stream
                refuses_streams(name, command, shops["layer"])
            if name in ("js", "python"):  # the others have no store of their own
                keeps_operations(name, command, shops["layer"])
            for server, shop in shops.items():
                print(f"clients: {name}: against the {server}")
                against(server, name, command, shop)
            with tempfile.TemporaryDirectory() as directory:
                failing_upstream(name, command, Path(directory))
    finally:
        for shop in shops.values():
            shop.kill()


main()
