//! `oncekey proxy --check`: values beyond their bounds, the precedence of flags, variables and the file, and the
//! configuration printed and read again.
#![allow(missing_docs, clippy::unwrap_used)]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Runs the program with these arguments and variables, and no others of its own.
fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oncekey"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ONCEKEY_") {
            command.env_remove(name);
        }
    }
    command.args(arguments).envs(variables.iter().copied()).output().unwrap()
}

fn check(arguments: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let upstream = ["proxy", "--check", "--upstream", "http://127.0.0.1:3000"];
    let output = run(&[&upstream[..], arguments].concat(), variables);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn file(directory: &Path, text: impl AsRef<[u8]>) -> PathBuf {
    let path = directory.join("oncekey.toml");
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn a_wrong_value_of_a_flag_is_usage_and_names_flag_value_and_bound() {
    for (flag, value, said) in [
        ("--ttl", "0", "at least 1ms"),
        ("--ttl", "5", "time unit needed"),
        ("--ttl", "-1s", "not a duration"),
        ("--wait", "1000000y", "at most 876000h"),
        ("--answer-within", "soon", "not a duration"),
        ("--give-up-after", "40000d", "at most 876000h"),
        ("--connect-timeout", "0", "at least 1ms"),
        ("--body-idle", "0", "at least 1ms"),
        ("--shutdown-timeout", "1000000y", "at most 876000h"),
        ("--drain-delay", "1", "time unit needed"),
        ("--lock-wait", "1000000y", "at most 876000h"),
        ("--listen", "80", "write 127.0.0.1:8080"),
        ("--listen", "127.0.0.1:65536", "write 127.0.0.1:8080"),
        ("--upstream", "http://h:99999", "a port from 1 to 65535"),
        ("--upstream", "http://h:0", "a port from 1 to 65535"),
        ("--upstream", "http://h/#x", "no fragment"),
        ("--upstream", "ftp://h", "write http://HOST:PORT"),
        ("--store", "mysql://h", "a directory or postgres://"),
        ("--admin", "9465", "write 127.0.0.1:9465"),
        ("--header", "Content-Length", "about a connection"),
        ("--header", "Oncekey-Key", "about a connection"),
        ("--replay-marker", "Transfer-Encoding: chunked", "about a connection"),
        ("--scope", "header:a b", "not the name of a header"),
        ("--contract", "ieft", "ietf"),
        ("--recovery", "hodl", "hold"),
        ("--required", "perhaps", "not a boolean"),
    ] {
        let (code, out, told) = check(&[&format!("{flag}={value}")], &[]);
        let names_all = [flag, value, said].iter().all(|part| told.contains(part));
        assert!(code == Some(2) && out.is_empty() && names_all, "{flag} {value}: {code:?} {told}");
        // The variable has the same bound.
        let variable = format!("ONCEKEY_{}", flag[2..].to_uppercase().replace('-', "_"));
        let output = run(&["proxy", "--check"], &[(&variable, value)]);
        assert_eq!(output.status.code(), Some(2), "{variable}={value}");
    }
}

#[test]
fn a_flag_stands_above_its_variable_and_that_above_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let text = "[upstream]\ngateway = true\nurls = [\"http://127.0.0.1:1\"]\n[policy]\nttl = \"1h\"\nrequired = true\n[control]\nsocket = \"off\"\n";
    let path = file(directory.path(), text);
    let printed = |flags: &[&str], variables: &[(&str, &str)]| {
        let (code, out, told) =
            check(&[&["--print", "--config", path.to_str().unwrap()], flags].concat(), variables);
        assert_eq!(code, Some(0), "{told}");
        out
    };
    for (field, of_file, variable, of_variable, flag, of_flag) in [
        ("ttl = ", "\"1h\"", ("ONCEKEY_TTL", "2h"), "\"2h\"", "--ttl=3h", "\"3h\""),
        ("required = ", "true", ("ONCEKEY_REQUIRED", "0"), "false", "--required", "true"),
        ("gateway = ", "true", ("ONCEKEY_GATEWAY", "no"), "false", "--gateway=true", "true"),
        (
            "socket = ",
            "\"off\"",
            ("ONCEKEY_NO_CONTROL", "false"),
            "\"auto\"",
            "--no-control",
            "\"off\"",
        ),
    ] {
        for (flags, variables, expected) in [
            (&[][..], &[][..], of_file),
            (&[], &[variable], of_variable),
            (&[flag], &[variable], of_flag),
        ] {
            let out = printed(flags, variables);
            let line = out.lines().find_map(|line| line.strip_prefix(field)).unwrap();
            assert_eq!(line, expected, "{field} {flags:?} {variables:?}");
        }
    }
}

#[test]
fn what_a_start_would_refuse_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    for (section, said) in [
        ("[engine]\nmax_store_bytes = \"1MiB\"", "max_store_bytes"),
        (
            "store = \"postgres://127.0.0.1:1/x\"\n[engine]\nmax_store_bytes = \"1KiB\"",
            "max_store_bytes is 1024, at least 1048576",
        ),
        (
            "store = \"postgres://127.0.0.1:1/x\"\n[postgres]\nschema = \"\"",
            "the bytes of schema are 0, 1 to 63",
        ),
        ("[policy]\nmax_response = \"17MiB\"", "at most 16MiB"),
        ("[engine]\ncache_bytes = \"2000GiB\"", "cache_bytes"),
        ("[tls]\ncert = \"/no/such\"\nkey = \"/no/such\"", "/no/such"),
        ("[policy]\nscope = \"jwt:sub\"\n[jwt]\nkeys = [\"/no/such\"]", "/no/such"),
        ("[admin]\ntoken_file = \"/no/such/token\"", "/no/such/token: No such file"),
        ("[admin]\nviewer_token_file = \"/etc/passwd\"", "/etc/passwd"),
    ] {
        let path = file(directory.path(), section);
        let (code, _, told) = check(&["--config", path.to_str().unwrap()], &[]);
        assert!(code == Some(2) && told.contains(said), "{section}: {code:?} {told}");
    }
    let tls = "[upstream]\nurls = [\"https://127.0.0.1:1\"]\nca = \"/no/such\"\n";
    let path = file(directory.path(), tls);
    let output = run(&["check", "--config", path.to_str().unwrap()], &[]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let empty = directory.path().join("empty");
    File::create(&empty).unwrap();
    let path = file(directory.path(), tls.replace("/no/such", empty.to_str().unwrap()));
    let output = run(&["check", "--config", path.to_str().unwrap()], &[]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains(&format!("{}: no certificate in it", empty.display())), "{told}");
}

#[test]
fn what_is_printed_is_accepted_and_printed_again() {
    let directory = tempfile::tempdir().unwrap();
    let text = "trusted_proxies = [\"10.0.0.0/8\"]\nreplay_marker = \"X-Replayed: \\\"yes\\\"\"\n[upstream]\nurls = [\"unix:/run/a b.sock\", \"h2c://[::1]:1/base\"]\nidle = \"1500ms\"\n[policy]\nscope = \"header:x-tenant\"\noutcomes = { \"503,408\" = \"release-at-least-once\" }\n[[route]]\npath = \"/v1/{id}\"\nmethods = [\"POST\", \"PUT\"]\nttl = \"72h\"\n[restore]\nrefuse_uuid7_before = \"2026-11-28T14:00:00Z\"\n";
    // The file has the marks that editors of other systems leave.
    let marked = format!("\u{feff}{}", text.replace('\n', "\r\n"));
    let path = file(directory.path(), marked);
    let print =
        |path: &Path| run(&["check", "--print", "--config", path.to_str().unwrap()], &[]).stdout;
    let first = print(&path);
    assert!(!first.is_empty());
    assert_eq!(print(&file(directory.path(), &first)), first);
}

#[cfg(target_os = "linux")]
#[test]
fn a_configuration_that_cannot_be_written_is_a_failure() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oncekey"));
    command.args(["proxy", "--check", "--print", "--upstream", "http://127.0.0.1:1"]);
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = command.stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}
