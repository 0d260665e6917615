//! The effective configuration as TOML.

use std::fmt::Write;

use oncekey::Durability;
use oncekey_http::Recovery;

use super::model::Config;
use super::outcomes::Outcome;
use super::parts::{Host, LogFormat, Socket};
use super::policy::Policy;
use crate::base::units;

/// A configuration file with the settings of `config`.
pub(crate) fn print(config: &Config) -> String {
    let mut out = String::new();
    let contract = config.contract();
    line(&mut out, "listen", list(&config.listen));
    line(&mut out, "store", quoted(&config.store));
    line(&mut out, "contract", quoted(config.contract.as_str()));
    line(&mut out, "headers", list(&contract.headers));
    let marker = contract.replay_marker.as_ref().map_or("none".to_owned(), |(name, value)| {
        format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()))
    });
    line(&mut out, "replay_marker", quoted(&marker));
    if let Some(documentation) = &config.documentation {
        line(&mut out, "documentation", quoted(documentation));
    }
    line(&mut out, "trusted_proxies", list(&config.trusted_proxies));
    line(&mut out, "forwarded", quoted(if config.forwarded { "set" } else { "off" }));
    let upstream = &config.upstream;
    out.push_str("\n[upstream]\n");
    line(&mut out, "urls", list(&upstream.urls));
    line(&mut out, "gateway", upstream.gateway);
    line(&mut out, "connect_timeout", time(upstream.connect_timeout));
    line(&mut out, "idle", time(upstream.idle));
    line(&mut out, "body_idle", time(upstream.body_idle));
    if let Some(ca) = &upstream.ca {
        line(&mut out, "ca", quoted(&ca.display()));
    }
    let connections = if upstream.fresh_for_keys { "new" } else { "pool" };
    line(&mut out, "keyed_connections", quoted(connections));
    line(&mut out, "max_connections", upstream.max_connections);
    line(&mut out, "health", quoted(upstream.health.as_deref().unwrap_or_default()));
    let host = match &upstream.host {
        Host::Pass => "pass".to_owned(),
        Host::Upstream => "upstream".to_owned(),
        Host::Literal(name) => String::from_utf8_lossy(name.as_bytes()).into_owned(),
    };
    line(&mut out, "host", quoted(&host));
    line(&mut out, "identity_for_keys", upstream.identity_for_keys);
    out.push_str("\n[policy]\n");
    policy(&mut out, &config.policy);
    for route in &config.routes {
        out.push_str("\n[[route]]\n");
        line(&mut out, "path", quoted(&route.path));
        if !route.methods.is_empty() {
            line(&mut out, "methods", list(&route.methods));
        }
        line(&mut out, "keys", route.policy.keys);
        policy(&mut out, &route.policy);
    }
    rest(&mut out, config);
    out
}

fn rest(out: &mut String, config: &Config) {
    out.push_str("\n[engine]\n");
    let durability = match config.engine.durability {
        Durability::Strict => "strict",
        Durability::Relaxed => "relaxed",
    };
    line(out, "durability", quoted(&durability));
    if let Some(bytes) = config.engine.max_store_bytes {
        line(out, "max_store_bytes", size(bytes));
    }
    line(out, "cache_bytes", size(config.engine.cache_bytes as u64));
    out.push_str("\n[limits]\n");
    line(out, "max_connections", config.limits.max_connections);
    line(out, "max_buffered", size(config.limits.max_buffered as u64));
    line(out, "header_timeout", time(config.limits.header_timeout));
    line(out, "request_body_idle", time(config.limits.request_body_idle));
    line(out, "tunnel_idle", time(config.limits.tunnel_idle));
    reached(out, config);
    out.push_str("\n[log]\n");
    let format = match config.log.format {
        LogFormat::Auto => "auto",
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    };
    line(out, "format", quoted(&format));
    line(out, "level", quoted(&config.log.level.to_string().to_lowercase()));
    line(out, "access", config.log.access);
    let traces = &config.traces;
    out.push_str("\n[traces]\n");
    let collector = traces.collector.as_ref().map(ToString::to_string);
    line(out, "collector", quoted(&collector.unwrap_or_default()));
    let ca = traces.ca.as_ref().map(|path| path.display().to_string());
    line(out, "ca", quoted(&ca.unwrap_or_default()));
    line(out, "service", quoted(&traces.service));
    line(out, "one_in", traces.one_in);
}

/// The settings for reaching the process, and for its clients.
fn reached(out: &mut String, config: &Config) {
    let path = |path: &Option<std::path::PathBuf>| {
        quoted(&path.as_ref().map(|path| path.display().to_string()).unwrap_or_default())
    };
    let address = |address: &Option<std::net::SocketAddr>| {
        quoted(&address.map(|address| address.to_string()).unwrap_or_default())
    };
    out.push_str("\n[postgres]\n");
    line(out, "create", config.postgres.create);
    line(out, "schema", quoted(&config.postgres.schema));
    line(out, "lease", time(config.postgres.lease));
    line(out, "instance", quoted(&config.postgres.instance));
    line(out, "ca", path(&config.postgres.ca));
    out.push_str("\n[tls]\n");
    line(out, "cert", path(&config.tls.cert));
    line(out, "key", path(&config.tls.key));
    line(out, "client_ca", path(&config.tls.client_ca));
    out.push_str("\n[jwt]\n");
    let keys: Vec<_> = config.jwt.keys.iter().map(|key| key.display().to_string()).collect();
    line(out, "keys", list(&keys));
    line(out, "verified_by", quoted(if config.jwt.by_gateway { "gateway" } else { "keys" }));
    for (name, value) in [("issuer", &config.jwt.issuer), ("audience", &config.jwt.audience)] {
        if let Some(value) = value {
            line(out, name, quoted(value));
        }
    }
    let admin = &config.admin;
    out.push_str("\n[admin]\n");
    line(out, "listen", address(&admin.listen));
    line(out, "token_file", path(&admin.token_file));
    line(out, "viewer_token_file", path(&admin.viewer_token_file));
    line(out, "hosts", list(&admin.hosts));
    line(out, "read_only", admin.read_only);
    line(out, "show_responses", admin.show_responses);
    line(out, "backups", path(&admin.backups));
    line(out, "audit_log", path(&admin.audit_log));
    out.push_str("\n[control]\n");
    line(out, "listen", address(&config.control.listen));
    let socket = match &config.control.socket {
        Socket::Auto => "auto".to_owned(),
        Socket::Off => "off".to_owned(),
        Socket::Path(path) => path.display().to_string(),
    };
    line(out, "socket", quoted(&socket));
    out.push_str("\n[restore]\n");
    let before = config.restore.refuse_uuid7_before;
    let before = before.map(|time| humantime::format_rfc3339(time).to_string());
    line(out, "refuse_uuid7_before", quoted(&before.unwrap_or_default()));
    let others = if config.restore.refuse_others { "refuse" } else { "allow" };
    line(out, "other_keys", quoted(others));
}

fn policy(out: &mut String, policy: &Policy) {
    line(out, "required", policy.required);
    let recovery = match policy.recovery {
        Recovery::Hold => "hold",
        Recovery::Retry => "retry",
    };
    line(out, "recovery", quoted(&recovery));
    line(out, "ttl", time(policy.ttl));
    line(out, "wait", time(policy.wait));
    line(out, "scope", quoted(&policy.scope));
    line(out, "fingerprint_headers", list(&policy.fingerprinted()));
    line(out, "drop_headers", list(&policy.drop_headers));
    line(out, "max_request_body", size(policy.max_request_body as u64));
    line(out, "max_response", size(policy.max_response as u64));
    line(out, "answer_within", time(policy.answer_within));
    line(out, "give_up_after", time(policy.give_up_after));
    let outcomes = policy.outcomes.0.iter().map(|(status, outcome)| {
        let what = match outcome {
            Outcome::Stored => "store",
            Outcome::Freed => "release-at-least-once",
            Outcome::Unknown => "unknown",
        };
        format!("\"{status}\" = \"{what}\"")
    });
    let outcomes: Vec<_> = outcomes.collect();
    line(out, "outcomes", format!("{{ {} }}", outcomes.join(", ")));
}

fn line(out: &mut String, name: &str, value: impl std::fmt::Display) {
    // Writing into a String cannot fail.
    let _ = writeln!(out, "{name} = {value}");
}

/// A basic string of TOML. Its escapes are those of JSON.
fn quoted(text: &(impl ToString + ?Sized)) -> String {
    serde_json::Value::String(text.to_string()).to_string().replace('\u{7f}', "\\u007f")
}

fn list<T: ToString>(members: &[T]) -> String {
    let members: Vec<_> = members.iter().map(quoted).collect();
    format!("[{}]", members.join(", "))
}

fn time(duration: std::time::Duration) -> String {
    quoted(&units::show_duration(duration))
}

fn size(bytes: u64) -> String {
    quoted(&units::show_bytes(bytes))
}
