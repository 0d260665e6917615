#!/usr/bin/env python3
"""Writes the alert rules of Prometheus and the dashboard of Grafana from the names in docs/operations.md and docs/proxy.md.

Usage: generate.py [--check]. With --check nothing is written: the files must be what would be written, and every
metric of the pages must be on the dashboard.
"""
import json, pathlib, re, sys

here = pathlib.Path(__file__).parent
page = "".join((here.parent / name).read_text() for name in ("operations.md", "proxy.md"))
METRICS = {  # name: (kind, meaning)
    name: (kind.split(",")[0], meaning.strip())
    for name, kind, meaning in re.findall(r"^\| `(oncekey_\w+)` \| ([^|]+?) \| (.+) \|$", page, re.M)
}


def known(expression):
    """The expression, whose metrics the page has. Exporters give a histogram three names."""
    for name in re.findall(r"oncekey_\w+", expression):
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        if base not in METRICS and name not in METRICS:
            sys.exit(f"docs/operations.md and docs/proxy.md have no metric {name}: {expression}")
    return expression


ALERTS = [  # name, expression, for, severity, summary
    ("OncekeyFailed", "increase(oncekey_failures_total[5m]) > 0", "0m", "critical", "Writes are refused: reopen the engine or restart, and look at the disk."),
    ("OncekeyFull", "oncekey_full == 1", "1m", "critical", "New requests with a key get 503: no space or no descriptors."),
    ("OncekeyOutcomeUnknown", "oncekey_orphans > 0", "1h", "warning", "Operations with unknown outcome wait for a decision."),
    ("OncekeyClaimHeldLong", "oncekey_oldest_claim_seconds > 300", "5m", "warning", "A handler hangs and keeps its key locked. Set the bound above your slowest handler."),
    ("OncekeyMismatches", 'rate(oncekey_answers_total{outcome="mismatched"}[15m]) > 0.1', "15m", "warning", "A client uses keys again for other requests, or a fingerprinted header changes between retries."),
    ("OncekeyErrors", 'rate(oncekey_answers_total{outcome="error"}[5m]) > 0', "5m", "critical", "Calls of the engine fail or are refused."),
    ("OncekeySyncSlow", "sum(rate(oncekey_sync_seconds_sum[5m])) / sum(rate(oncekey_sync_seconds_count[5m])) > 2 * (sum(rate(oncekey_sync_seconds_sum[1d])) / sum(rate(oncekey_sync_seconds_count[1d])))", "15m", "warning", "Syncs take twice as long as in the last day: the disk, or its neighbours."),
    ("OncekeyResponsesNotOnDisk", "increase(oncekey_layer_complete_failed_total[5m]) > 0", "0m", "critical", "Responses were sent that are not on disk."),
    ("OncekeyUndecodable", "increase(oncekey_layer_undecodable_total[1h]) > 0", "0m", "warning", "Stored responses cannot be replayed: written by another program or a newer version."),
    ("OncekeyBodiesOverBudget", "rate(oncekey_layer_body_overloaded_total[5m]) > 0", "5m", "warning", "Request bodies take all the memory that they may (max_buffered)."),
    ("OncekeyProxyUpstreamUnknown", 'sum by (upstream) (rate(oncekey_proxy_upstream_failures_total{sent="maybe"}[5m])) > 0', "5m", "warning", "Requests break off at the upstream after they were sent: with a key each leaves an unknown outcome. The label stage says where."),
    ("OncekeyProxyUpstreamDown", "oncekey_proxy_upstream_up == 0", "1m", "warning", "An upstream fails its health checks."),
    ("OncekeyProxyReloadRefused", 'increase(oncekey_config_reloads_total{result="refused"}[15m]) > 0', "0m", "warning", "A changed configuration of the proxy was refused; the old one is in force. The log says why."),
    ("OncekeyProxyKeysUnrecognized", "increase(oncekey_proxy_unrecognized_key_header_total[1h]) > 0", "0m", "warning", "Clients send their keys in a header that the proxy does not know: their requests are not protected."),
    ("OncekeyProxyHeadersIgnored", "increase(oncekey_proxy_ignored_headers_total[1h]) > 0", "0m", "warning", "An upstream answers with Oncekey- headers that are misspelled: its word does not count."),
    ("OncekeyUnscopedCookies", "increase(oncekey_layer_unscoped_cookies_total[1h]) > 0", "0m", "warning", "Requests with a cookie and a key at a layer without a scope: two users may share a response."),
]


def rules():
    lines = ["# Written by docs/monitoring/generate.py from docs/operations.md and docs/proxy.md.", "groups:", "  - name: oncekey", "    rules:"]
    for name, expression, during, severity, summary in ALERTS:
        lines += [
            f"      - alert: {name}",
            f"        expr: {json.dumps(known(expression))}",
            f"        for: {during}",
            "        labels:",
            f"          severity: {severity}",
            "        annotations:",
            f"          summary: {json.dumps(summary)}",
        ]
    return "\n".join(lines) + "\n"


def targets(name, kind):
    if kind == "histogram":
        mean = f"rate({name}_sum[$__rate_interval]) / rate({name}_count[$__rate_interval])"
        return [(mean, "mean"), (f"rate({name}_count[$__rate_interval])", "per second")]
    if kind == "counter":
        label = {
            "oncekey_answers_total": "{{outcome}}",
            "oncekey_proxy_requests_total": "{{route}} {{outcome}} {{status}}",
            "oncekey_proxy_upstream_failures_total": "{{upstream}} {{stage}} {{sent}}",
            "oncekey_proxy_ignored_headers_total": "{{header}}",
            "oncekey_config_reloads_total": "{{result}}",
        }.get(name, "per second")
        return [(f"rate({name}[$__rate_interval])", label)]
    label = {"oncekey_proxy_upstream_connections": " {{upstream}} {{state}}", "oncekey_proxy_buffered_bytes": " {{of}}", "oncekey_proxy_upstream_up": " {{upstream}}"}.get(name, "")
    return [(name, "{{instance}}" + label)]


def unit(name, kind):
    if kind == "counter":
        return "ops"
    return "s" if name.endswith("_seconds") else "bytes" if "bytes" in name else "short"


def dashboard():
    panels = []
    for index, (name, (kind, meaning)) in enumerate(METRICS.items()):
        panels.append({
            "id": index + 1,
            "type": "timeseries",
            "title": name,
            "description": re.sub(r"[`*]", "", meaning),
            "datasource": {"type": "prometheus", "uid": "${datasource}"},
            "gridPos": {"x": index % 3 * 8, "y": index // 3 * 7, "w": 8, "h": 7},
            "fieldConfig": {"defaults": {"unit": unit(name, kind)}, "overrides": []},
            "targets": [
                {"refId": chr(65 + n), "expr": known(expression), "legendFormat": legend}
                for n, (expression, legend) in enumerate(targets(name, kind))
            ],
        })
    return json.dumps({
        "title": "oncekey",
        "uid": "oncekey",
        "schemaVersion": 39,
        "tags": ["oncekey"],
        "time": {"from": "now-6h", "to": "now"},
        "refresh": "30s",
        "templating": {"list": [{"name": "datasource", "type": "datasource", "query": "prometheus"}]},
        "panels": panels,
    }, indent=1) + "\n"


if len(METRICS) < 45:
    sys.exit(f"the pages have {len(METRICS)} metrics: their tables are read wrong")
for name, text in (("oncekey-alerts.yml", rules()), ("oncekey-dashboard.json", dashboard())):
    file = here / name
    if "--check" not in sys.argv[1:]:
        file.write_text(text)
    elif not file.exists() or file.read_text() != text:
        sys.exit(f"docs/monitoring/{name} is not what the pages say: run docs/monitoring/generate.py")
