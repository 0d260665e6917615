//! The configuration file.

use std::collections::BTreeSet;

use toml::de::DeTable;

use super::listen::Listen;
use super::model::Config;
use super::policy::{Policy, Route};
use super::scope::Scope;
use super::section::{Mistakes, Section};
use super::store::StoreAt;
use super::target::Target;
use super::values::{
    address, collector, contract, durability, header_name, health, host, host_name, lease,
    log_format, log_level, marker, method, one_of, outcome, passing_header, recovery,
    response_size, route_path, size, socket, some_path, some_size, time, url,
};
use crate::base::units;

/// Reads `text`, the contents of the file `name`, over `config`. `flags` changes the policy that routes start
/// from.
///
/// # Errors
/// A line for each of the first ten mistakes.
pub(crate) fn read(
    config: &mut Config,
    name: &str,
    text: &str,
    flags: impl Fn(&mut Policy),
) -> Result<(), Vec<String>> {
    let mistakes = Mistakes::new(name, text);
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        mistakes.add(error.span().unwrap_or_default(), error.message());
    }
    root(config, Section::root(&table, &mistakes), flags);
    let lines = mistakes.lines();
    if lines.is_empty() { Ok(()) } else { Err(lines) }
}

fn root(config: &mut Config, mut root: Section<'_>, flags: impl Fn(&mut Policy)) {
    if let Some(listen) = root.some_texts("listen", Listen::parse) {
        config.listen = listen;
    }
    root.text("store", &mut config.store, StoreAt::parse);
    root.text("contract", &mut config.contract, contract);
    if let Some(headers) = root.some_texts("headers", passing_header) {
        config.headers = headers;
    }
    root.text("replay_marker", &mut config.replay_marker, |text| marker(text).map(Some));
    root.text("documentation", &mut config.documentation, url);
    if let Some(trusted) = root.texts("trusted_proxies", str::parse) {
        config.trusted_proxies = trusted;
    }
    if let Some(mut section) = root.section("upstream") {
        let upstream = &mut config.upstream;
        if let Some(urls) = section.texts("urls", Target::parse) {
            upstream.urls = urls;
        }
        section.flag("gateway", &mut upstream.gateway);
        section.text("connect_timeout", &mut upstream.connect_timeout, units::some_time);
        section.text("idle", &mut upstream.idle, units::duration);
        section.text("ca", &mut upstream.ca, |text| Ok(Some(text.into())));
        section.text("body_idle", &mut upstream.body_idle, units::some_time);
        section.text("keyed_connections", &mut upstream.fresh_for_keys, |text| {
            one_of(text, "keyed_connections", &[("pool", false), ("new", true)])
        });
        section.number("max_connections", &mut upstream.max_connections, 1);
        section.text("health", &mut upstream.health, health);
        section.text("host", &mut upstream.host, host);
        section.flag("identity_for_keys", &mut upstream.identity_for_keys);
    }
    if let Some(mut section) = root.section("policy") {
        policy(&mut config.policy, &mut section);
    }
    // A setting of a route wins over a flag, since it is more specific.
    flags(&mut config.policy);
    for mut section in root.sections("route") {
        let Some(route) = route(&config.policy, &mut section) else { continue };
        if let Some(twice) = config.routes.iter().find_map(|other| other.takes_also(&route)) {
            section.note(format!("route {:?}: another one takes {twice}, too", route.path));
        }
        config.routes.push(route);
    }
    running(config, &mut root);
    reached(config, &mut root);
}

/// The settings for running the process.
fn running(config: &mut Config, root: &mut Section<'_>) {
    if let Some(mut section) = root.section("engine") {
        let engine = &mut config.engine;
        section.text("durability", &mut engine.durability, durability);
        section.text("max_store_bytes", &mut engine.max_store_bytes, |text| {
            units::bytes(text).map(Some)
        });
        section.text("cache_bytes", &mut engine.cache_bytes, size);
    }
    if let Some(mut section) = root.section("postgres") {
        let postgres = &mut config.postgres;
        section.flag("create", &mut postgres.create);
        section.text("schema", &mut postgres.schema, |text| Ok(text.to_owned()));
        section.text("lease", &mut postgres.lease, lease);
        section.text("instance", &mut postgres.instance, |text| Ok(text.to_owned()));
        section.text("ca", &mut postgres.ca, some_path);
    }
    if let Some(mut section) = root.section("restore") {
        let restore = &mut config.restore;
        section.text("refuse_uuid7_before", &mut restore.refuse_uuid7_before, time);
        section.text("other_keys", &mut restore.refuse_others, |text| {
            one_of(text, "other_keys", &[("allow", false), ("refuse", true)])
        });
    }
    if let Some(mut section) = root.section("limits") {
        let limits = &mut config.limits;
        section.number("max_connections", &mut limits.max_connections, 1);
        section.text("max_buffered", &mut limits.max_buffered, some_size);
        section.text("header_timeout", &mut limits.header_timeout, units::some_time);
        section.text("request_body_idle", &mut limits.request_body_idle, units::some_time);
        section.text("tunnel_idle", &mut limits.tunnel_idle, units::some_time);
    }
    if let Some(mut section) = root.section("log") {
        section.text("format", &mut config.log.format, log_format);
        section.text("level", &mut config.log.level, log_level);
        section.flag("access", &mut config.log.access);
    }
    if let Some(mut section) = root.section("traces") {
        let traces = &mut config.traces;
        section.text("collector", &mut traces.collector, collector);
        section.text("ca", &mut traces.ca, some_path);
        section.text("service", &mut traces.service, |text| Ok(text.to_owned()));
        section.number("one_in", &mut traces.one_in, 0);
    }
}

/// The settings for reaching the process, and for its clients.
fn reached(config: &mut Config, root: &mut Section<'_>) {
    root.text("forwarded", &mut config.forwarded, |text| {
        one_of(text, "forwarded", &[("set", true), ("off", false)])
    });
    if let Some(mut section) = root.section("tls") {
        let tls = &mut config.tls;
        section.text("cert", &mut tls.cert, some_path);
        section.text("key", &mut tls.key, some_path);
        section.text("client_ca", &mut tls.client_ca, some_path);
    }
    if let Some(mut section) = root.section("jwt") {
        let jwt = &mut config.jwt;
        if let Some(keys) = section.texts("keys", |text| Ok(text.into())) {
            jwt.keys = keys;
        }
        section.text("verified_by", &mut jwt.by_gateway, |text| {
            one_of(text, "verified_by", &[("keys", false), ("gateway", true)])
        });
        section.text("issuer", &mut jwt.issuer, |text| Ok(Some(text.to_owned())));
        section.text("audience", &mut jwt.audience, |text| Ok(Some(text.to_owned())));
    }
    if let Some(mut section) = root.section("admin") {
        let admin = &mut config.admin;
        section.text("listen", &mut admin.listen, address);
        section.text("token_file", &mut admin.token_file, some_path);
        section.text("viewer_token_file", &mut admin.viewer_token_file, some_path);
        if let Some(hosts) = section.texts("hosts", host_name) {
            admin.hosts = hosts;
        }
        section.flag("read_only", &mut admin.read_only);
        section.flag("show_responses", &mut admin.show_responses);
        section.text("backups", &mut admin.backups, some_path);
        section.text("audit_log", &mut admin.audit_log, some_path);
    }
    if let Some(mut section) = root.section("control") {
        section.text("listen", &mut config.control.listen, address);
        section.text("socket", &mut config.control.socket, socket);
    }
}

fn policy(policy: &mut Policy, section: &mut Section<'_>) {
    section.flag("required", &mut policy.required);
    section.text("recovery", &mut policy.recovery, recovery);
    section.text("ttl", &mut policy.ttl, units::some_time);
    section.text("wait", &mut policy.wait, units::duration);
    section.text("scope", &mut policy.scope, Scope::parse);
    if let Some(headers) = section.texts("fingerprint_headers", header_name) {
        policy.fingerprint_headers = Some(headers);
    }
    if let Some(headers) = section.texts("drop_headers", header_name) {
        policy.drop_headers = headers;
    }
    section.text("max_request_body", &mut policy.max_request_body, size);
    section.text("max_response", &mut policy.max_response, response_size);
    section.text("answer_within", &mut policy.answer_within, units::duration);
    section.text("give_up_after", &mut policy.give_up_after, units::duration);
    let (outcomes, mut said) = (&mut policy.outcomes, BTreeSet::new());
    section.entries("outcomes", |statuses, what| outcome(outcomes, &mut said, statuses, what));
}

fn route(default: &Policy, section: &mut Section<'_>) -> Option<Route> {
    let mut route = Route { path: String::new(), methods: Vec::new(), policy: default.clone() };
    section.text("path", &mut route.path, route_path);
    section.require("path");
    if let Some(methods) = section.texts("methods", method) {
        route.methods = methods;
    }
    section.flag("keys", &mut route.policy.keys);
    policy(&mut route.policy, section);
    // A missing or wrong path has been reported already.
    (!route.path.is_empty()).then_some(route)
}

#[cfg(test)]
mod tests {
    use super::super::outcomes::Outcome;
    use super::super::print;
    use super::*;
    use oncekey_http::Recovery;
    use std::time::Duration;

    fn mistakes(text: &str) -> Vec<String> {
        read(&mut Config::default(), "oncekey.toml", text, |_| ()).err().unwrap_or_default()
    }

    #[test]
    fn every_mistake_is_told_with_its_place_and_what_was_meant() {
        let text = r#"
store = "/tmp/x"
[upstream]
urls = ["http://127.0.0.1:3000"]
[policy]
give_up_afer = "5m"
ttl = 5
[policy.outcomes]
"500" = "release"
[[route]]
path = "/v1/payments/:id"
"#;
        let expected = [
            "oncekey.toml:6:1: unknown field `give_up_afer` in [policy]; did you mean `give_up_after`?",
            "oncekey.toml:7:7: `ttl` takes a string, not integer",
            "oncekey.toml:9:1: \"500\" = \"release\" runs an operation again that may have happened; write \"release-at-least-once\"",
            "oncekey.toml:11:8: route \"/v1/payments/:id\": parameters are written {id}, the rest {*rest}",
        ];
        assert_eq!(mistakes(text), expected);
    }

    /// The fields of a file, each with its section.
    fn fields(text: &str) -> BTreeSet<(&str, &str)> {
        let mut section = "";
        let mut fields = BTreeSet::new();
        for line in text.lines() {
            if line.starts_with('[') {
                section = line.split_once(']').unwrap().0;
            } else if let Some((name, _)) = line.split_once(" = ") {
                fields.insert((section, name));
            }
        }
        fields
    }

    /// Whether a line of the page says that its value is not the default.
    fn is_no_default(line: &str) -> bool {
        let comment = line.split_once(" # ").map_or("", |(_, comment)| comment);
        comment.contains("default") || comment.contains("required")
    }

    #[test]
    fn the_page_names_every_field_and_its_default() {
        let page = include_str!("../../../docs/proxy.md");
        let example = page.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
        assert_eq!(mistakes(example), [""; 0]);

        let mut in_route = false;
        let defaults = example.lines().filter(|line| {
            in_route = if line.starts_with('[') { line.starts_with("[[") } else { in_route };
            !in_route && !is_no_default(line)
        });
        let defaults: String = defaults.map(|line| format!("{line}\n")).collect();
        let mut stated = Config::default();
        read(&mut stated, "oncekey.toml", &defaults, |_| ()).unwrap();
        let printed = print(&Config::default());
        assert_eq!(print(&stated), printed);
        let on_page = fields(example);
        for field in fields(&printed) {
            assert!(on_page.contains(&field), "{field:?} is not on the page");
        }
    }

    #[test]
    fn a_collector_is_an_address_of_http() {
        let told = |collector: &str| mistakes(&format!("[traces]\ncollector = {collector:?}\n"));
        assert_eq!(told("https://otel.example:4318/base"), Vec::<String>::new());
        assert_eq!(told(""), Vec::<String>::new());
        for (wrong, said) in [
            ("h2c://h:4317", "write http://HOST:4318"),
            ("unix:/run/otel", "write http://HOST:4318"),
            ("http://h:4318/v1/traces/", "leave out /v1/traces"),
            ("h:4318", "write http://HOST:PORT"),
        ] {
            let lines = told(wrong);
            let [line] = &lines[..] else { panic!("{wrong}: {lines:?}") };
            assert!(line.starts_with("oncekey.toml:2:13: ") && line.contains(said), "{line}");
        }
    }

    #[test]
    fn the_page_about_operations_is_understood() {
        let page = include_str!("../../../docs/operations.md");
        let snippets =
            page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
        for snippet in snippets {
            assert_eq!(mistakes(snippet), [""; 0]);
        }
    }

    #[test]
    fn a_route_has_a_path_and_a_table_is_a_table() {
        assert_eq!(
            mistakes("[[route]]\nttl = \"1h\"\n"),
            ["oncekey.toml:1:1: [[route]] needs `path`"]
        );
        assert_eq!(
            mistakes("policy = 1"),
            ["oncekey.toml:1:10: `policy` takes a table, not integer"]
        );
    }

    #[test]
    fn a_value_beyond_its_bound_is_told_with_its_place_and_the_bound() {
        for (section, line, said) in [
            ("[policy]", "ttl = \"0\"", "at least 1ms"),
            ("[policy]", "wait = \"40000d\"", "at most 876000h"),
            ("[upstream]", "connect_timeout = \"0\"", "at least 1ms"),
            ("[upstream]", "max_connections = 0", "a number from 1 to 4294967295"),
            ("[limits]", "header_timeout = \"0\"", "at least 1ms"),
            ("[limits]", "max_connections = -1", "a number from 1 to 4294967295"),
            ("[postgres]", "lease = \"11m\"", "at most 10m"),
            ("[admin]", "listen = \"9465\"", "write 127.0.0.1:9465"),
            ("[admin]", "hosts = [\"a b\"]", "not the name of a host"),
            ("", "listen = []", "`listen` is empty"),
            ("", "headers = [\"Host\"]", "is about a connection"),
            ("", "replay_marker = \"Content-Length: 1\"", "is about a connection"),
            ("", "documentation = \"no url\"", "is not a URL"),
            ("[upstream]", "urls = [\"http://h:99999\"]", "a port from 1 to 65535"),
        ] {
            let lines = mistakes(&format!("{section}\n{line}\n"));
            let [told] = &lines[..] else { panic!("{line}: {lines:?}") };
            assert!(told.starts_with("oncekey.toml:2:") && told.contains(said), "{told}");
        }
    }

    #[test]
    fn every_number_at_its_ends_is_taken_or_refused() {
        let told = |section: &str, line: &str| mistakes(&format!("[{section}]\n{line}\n"));
        let fields = [
            ("upstream", "connect_timeout", [r#""0""#, r#""1ms""#, r#""1h""#]),
            ("upstream", "body_idle", [r#""0""#, r#""1ms""#, r#""1h""#]),
            ("upstream", "max_connections", ["0", "1", "4294967295"]),
            ("limits", "max_connections", ["0", "1", "4294967295"]),
            ("limits", "max_buffered", [r#""0""#, r#""1""#, r#""17179869183GiB""#]),
            ("limits", "header_timeout", [r#""0""#, r#""1ms""#, r#""1h""#]),
            ("limits", "request_body_idle", [r#""999us""#, r#""1ms""#, r#""1h""#]),
            ("policy", "ttl", [r#""0""#, r#""1ms""#, r#""36500days""#]),
            ("policy", "max_response", [r#""16777217""#, r#""0""#, r#""16MiB""#]),
        ];
        for (section, field, [wrong, least, most]) in fields {
            let lines = told(section, &format!("{field} = {wrong}"));
            let bound = ["at least", "at most", "a number from 1"];
            let names_bound = bound.iter().any(|bound| lines.join("").contains(bound));
            assert!(names_bound && lines[0].starts_with("oncekey.toml:2:"), "{field}: {lines:?}");
            for right in [least, most] {
                assert_eq!(told(section, &format!("{field} = {right}")), [""; 0], "{field}");
            }
        }
        // The longest durations that can be written.
        for (section, field) in [
            ("upstream", "connect_timeout"),
            ("upstream", "idle"),
            ("upstream", "body_idle"),
            ("limits", "header_timeout"),
            ("limits", "request_body_idle"),
            ("limits", "tunnel_idle"),
            ("policy", "ttl"),
            ("policy", "wait"),
            ("policy", "answer_within"),
            ("policy", "give_up_after"),
        ] {
            let line = format!("{field} = \"18446744073709551615s\"");
            let lines = told(section, &line);
            assert!(lines.join("").contains("at most 876000h"), "{lines:?}");
        }
    }

    #[test]
    fn two_routes_do_not_take_the_same_requests() {
        let two = |one: &str, other: &str| {
            mistakes(&format!(
                "[[route]]\npath = \"/a\"\n{one}\n[[route]]\npath = \"/a\"\n{other}\n"
            ))
        };
        let put = "methods = [\"PUT\"]";
        let told = ["oncekey.toml:4:1: route \"/a\": another one takes every method, too"];
        assert_eq!(two("", ""), told);
        let told = ["oncekey.toml:4:1: route \"/a\": another one takes PUT, too"];
        assert_eq!(two(put, "methods = [\"POST\", \"PUT\"]"), told);
        assert_eq!(two("", put), [""; 0]);
        assert_eq!(two("methods = [\"POST\"]", put), [""; 0]);
    }

    #[test]
    fn text_that_is_no_toml_is_told_with_its_place() {
        let lines = mistakes("a = 1\nb = = 2\n");
        assert!(lines.iter().any(|line| line.starts_with("oncekey.toml:2:")), "{lines:?}");
    }

    #[test]
    fn a_route_starts_from_the_policy_of_all() {
        let mut config = Config::default();
        let text = r#"
[policy]
ttl = "1h"
wait = "2s"
outcomes = { "503" = "release-at-least-once" }
[[route]]
path = "/v1/{id}"
methods = ["POST"]
ttl = "72h"
recovery = "retry"
[[route]]
path = "/hooks/{*rest}"
keys = false
"#;
        assert_eq!(read(&mut config, "f", text, |_| ()), Ok(()));
        let [first, second] = &config.routes[..] else { panic!("{:?}", config.routes) };
        let expected = Policy {
            ttl: Duration::from_secs(72 * 3600),
            recovery: Recovery::Retry,
            ..config.policy.clone()
        };
        assert_eq!(first.policy, expected);
        assert_eq!(first.policy.outcomes.0[&503], Outcome::Freed);
        assert_eq!(first.policy.wait, Duration::from_secs(2));
        assert!(!second.policy.keys && first.policy.keys);
    }

    #[test]
    fn what_is_printed_reads_as_the_same() {
        let mut config = Config::default();
        let text = r#"
contract = "ietf"
trusted_proxies = ["10.0.0.0/8"]
replay_marker = "X-Replayed: yes"
[upstream]
urls = ["http://a:1/base", "unix:/run/app.sock"]
[policy]
scope = "header:x-tenant"
max_response = "3MiB"
outcomes = { "503" = "unknown", "401" = "store" }
[[route]]
path = "/v1/{id}"
methods = ["POST"]
required = true
[traces]
collector = "http://127.0.0.1:4318"
one_in = 100
"#;
        assert_eq!(read(&mut config, "f", text, |_| ()), Ok(()));
        let printed = super::super::print(&config);
        let mut again = Config::default();
        assert_eq!(read(&mut again, "printed", &printed, |_| ()), Ok(()), "{printed}");
        assert_eq!(super::super::print(&again), printed);
        assert_eq!(again.policy.outcomes, config.policy.outcomes);
    }
}
