#!/usr/bin/env python3
"""Checks the documents of this folder, and the orders service against them. Usage: check.py PROGRAM.

Needs openapi-spec-validator and jsonschema of PyPI; docs/check.sh installs them.
"""
import json, pathlib, subprocess, sys, tempfile, threading, time, urllib.error, urllib.request

import jsonschema
import openapi_spec_validator
import yaml

here = pathlib.Path(__file__).parent
schema = json.loads((here / "problem.schema.json").read_text())
jsonschema.Draft202012Validator.check_schema(schema)
document = yaml.safe_load((here / "orders.yaml").read_text())
openapi_spec_validator.validate(document, base_uri=(here / "orders.yaml").absolute().as_uri())
example = document["components"]["responses"]["KeyConflict"]["content"]["application/problem+json"]["examples"]["locked"]["value"]
problem = jsonschema.Draft202012Validator(schema)
problem.validate(example)
order = jsonschema.Draft202012Validator(document["components"]["schemas"]["Order"])
# The layer's codes and those of the schema are the same.
source = (here / "../../engine-http/src/rejection.rs").read_text().split("fn code(&self)")[1].split("fn detail")[0]
codes = {word for word in source.replace('"', " ").split() if word.startswith("idempotency_")}
if codes != set(schema["properties"]["code"]["enum"]):
    sys.exit(f"codes differ: {codes ^ set(schema['properties']['code']['enum'])}")


def post(url, key, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json", **key})
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.headers, json.load(answer)
    except urllib.error.HTTPError as answer:
        return answer.code, answer.headers, json.load(answer)


with tempfile.TemporaryDirectory() as store:
    server = subprocess.Popen([sys.argv[1], "--listen", "127.0.0.1:0", "--store", store], stdout=subprocess.PIPE, text=True)
    try:
        url = server.stdout.readline().rsplit(" ", 1)[1].strip() + "/api/v2/orders"
        new, key = {"customerId": "c", "items": [1]}, {"X-Idempotency-Key": "k"}
        status, _, answer = post(url, key, new)
        assert status == 201, answer
        order.validate(answer)
        slow = {"customerId": "c", "items": [], "processingMs": 3000}
        first = threading.Thread(target=post, args=(url, {"X-Idempotency-Key": "slow"}, slow))
        first.start()
        while json.load(urllib.request.urlopen(url))["executions"] < 2:
            time.sleep(0.01)
        for code, key, body in [
            ("idempotency_key_mismatch", {"X-Idempotency-Key": "k"}, slow),
            ("idempotency_key_locked", {"X-Idempotency-Key": "slow"}, slow),
            ("idempotency_key_invalid", {"X-Idempotency-Key": "k" * 256}, new),
            ("idempotency_body_too_large", {"X-Idempotency-Key": "large"}, {"customerId": "x" * (3 << 20), "items": []}),
        ]:
            status, headers, answer = post(url, key, body)
            problem.validate(answer)
            assert (answer["code"], answer["status"]) == (code, status), answer
            assert str(status) in document["paths"]["/api/v2/orders"]["post"]["responses"], status
            assert headers["Content-Type"] == "application/problem+json", headers
        first.join()
    finally:
        server.kill()
        server.wait()
