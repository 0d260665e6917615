"""The client library of Stripe (PyPI: stripe) against the charges service under `Contract::stripe()`.

Usage: stripe_client.py PROGRAM, the charges service as it was built. Prints a line for each row, and fails
with the first that does not hold.
"""
import os, subprocess, sys, tempfile, threading, urllib.request

import stripe

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "clients", "test"))
from link import Link  # a connection that drops answers, the same that the clients of this repository pass


def check(holds, row, *seen):
    if not holds:
        sys.exit(f"stripe: {row} does not hold: {seen}")
    print(f"stripe: {row}")


def client(url, retries):
    return stripe.StripeClient("sk_test_none", base_addresses={"api": url}, max_network_retries=retries)


def charge(to, key, amount=100, description=""):
    params = {"amount": amount, "currency": "eur", "description": description}
    return to.v1.charges.create(params=params, options={"idempotency_key": key})


def raised(call):
    try:
        call()
    except stripe.StripeError as error:
        return error
    sys.exit("stripe: an error was expected")


def code(error):
    return error.json_body["error"]["code"]


def rows(url, host):
    def runs():
        return int(urllib.request.urlopen(url + "/runs").read())

    plain, patient = client(url, 0), client(url, 10)

    first = charge(plain, "first")
    check(first.id == "ch_1" and first.last_response.headers.get("Idempotent-Replayed") is None, "a first charge", first)
    again = charge(plain, "first")
    check(again.id == first.id and again.last_response.headers["Idempotent-Replayed"] == "true" and runs() == 1, "a retry is replayed and marked", again)

    error = raised(lambda: charge(patient, "first", amount=999))
    check(isinstance(error, stripe.IdempotencyError) and error.http_status == 400, "another request under the key raises IdempotencyError", error)
    check("body" in str(error) and runs() == 1, "and says what differs", error)

    slow = threading.Thread(target=charge, args=(plain, "slow", 100, "slow"))
    before = runs()
    slow.start()
    while runs() == before:
        pass
    error = raised(lambda: charge(plain, "slow", 100, "slow"))
    check(error.http_status == 409 and code(error) == "idempotency_key_in_use", "a duplicate is told so", error)
    waited = charge(patient, "slow", 100, "slow")
    slow.join()
    check(waited.description == "slow" and runs() == before + 1, "a duplicate with retries gets the charge", waited)

    before = runs()
    for _ in range(2):
        error = raised(lambda: charge(client(url, 2), "broken", 100, "broken"))
        check(error.http_status == 500 and f"run {before + 1} broke" in str(error), "a 500 is replayed, not run again", error)
    check(runs() == before + 1, "it ran once", runs())

    before = runs()
    raised(lambda: charge(plain, "panic", 100, "panic"))
    error = raised(lambda: charge(patient, "panic", 100, "panic"))
    check(code(error) == "idempotency_outcome_unknown" and runs() == before + 1, "an unknown outcome is raised without retries", error)

    before = runs()
    # This library does not retry by itself after an answer that is torn in the middle.
    lossy = client(Link(host, seed=7, fates=("unsent", "unheard")).url, 25)
    ids = [charge(lossy, f"lossy-{n}", amount=n + 1).id for n in range(12)]
    check(len(set(ids)) == 12 and runs() == before + 12, "12 charges over a link that drops answers run 12 times", ids, runs())

    error = raised(lambda: charge(plain, "k" * 256))
    check(isinstance(error, stripe.InvalidRequestError) and code(error) == "idempotency_key_invalid", "a key that is too long is an invalid request", error)


with tempfile.TemporaryDirectory() as store:
    server = subprocess.Popen([sys.argv[1], "127.0.0.1:0", store], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        url = server.stdout.readline().rsplit(" ", 1)[1].strip()
        host, port = url.removeprefix("http://").split(":")
        stripe.max_network_retries = 0
        rows(url, (host, int(port)))
    finally:
        server.kill()
        server.wait()
