//! The engine behind a pooler, under another isolation, with few rights, and over TLS.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::process::Command;

use common::asking::{LONG, body, claim, key, orphan, replay};
use common::cluster;
use common::modes::{grant, pooler, settings_of};
use oncekey::{Begin, Engine, ErrorKind, Lookup};
use oncekey_postgres::Options;

/// Runs every statement, from both engines.
fn everything(one: &Engine, other: &Engine) {
    let first = claim(one, "a");
    first.checkpoint(b"half").wait().unwrap();
    drop(first);
    let left = orphan(other, "a");
    assert_eq!(other.orphans().unwrap().len(), 1);
    let second = left.take_over().wait().unwrap();
    assert_eq!(second.last_checkpoint().unwrap().as_deref(), Some(&b"half"[..]));
    second.complete(b"done").wait().unwrap();
    assert_eq!(replay(one, "a"), b"done");
    claim(one, "b").abort().wait().unwrap();
    std::thread::scope(|scope| {
        for engine in [one, other] {
            scope.spawn(move || {
                let pending: Vec<_> = (0..60)
                    .map(|number| {
                        engine.begin_waiting(&key(format!("many {number}")), body("a"), LONG)
                    })
                    .collect();
                for pending in pending {
                    match pending.wait().unwrap() {
                        Begin::Claimed(claim) => drop(claim.complete(b"done").wait().unwrap()),
                        Begin::Replay(_) => {}
                        other => panic!("{other:?}"),
                    }
                }
            });
        }
    });
    other.sweep().unwrap();
    one.reopen().unwrap();
    assert!(matches!(one.get(&key("a")).unwrap(), Lookup::Completed(_)));
}

fn two(open: impl Fn() -> Options) -> [Engine; 2] {
    [(); 2].map(|()| open().open().unwrap())
}

#[test]
fn behind_a_pooler_in_transaction_and_in_statement_mode() {
    let Some(cluster) = cluster() else { return };
    for mode in ["transaction", "statement"] {
        let Some(pooler) = pooler(cluster, mode) else { return };
        let database = cluster.database();
        settings_of(cluster, &format!("DATABASE {database}"));
        drop(cluster.options(&database, "").open().unwrap());
        let url = format!("host={} port=6432 user=postgres dbname={database}", pooler.display());
        let refused = Options::new(&url).open().unwrap_err();
        assert_ne!(
            refused.kind(),
            ErrorKind::StoreMissing,
            "startup options are refused: {refused:?}"
        );
        let [one, other] = two(|| Options::new(&url).startup_options(false));
        everything(&one, &other);
        drop([one, other]);
    }
}

#[test]
fn serializable_and_repeatable_read_as_defaults_of_the_database() {
    let Some(cluster) = cluster() else { return };
    for isolation in ["serializable", "repeatable read"] {
        let database = cluster.database();
        let set =
            format!("ALTER DATABASE {database} SET default_transaction_isolation = '{isolation}'");
        cluster.raw("postgres").run(&set);
        let [one, other] = two(|| cluster.options(&database, ""));
        everything(&one, &other);
    }
}

#[test]
fn a_role_with_the_rights_that_the_documentation_lists() {
    let Some(cluster) = cluster() else { return };
    let database = cluster.database();
    let raw = cluster.raw(&database);
    raw.run("CREATE ROLE app LOGIN");
    let url =
        format!("host={} port={} user=app dbname={database}", cluster.dir.display(), cluster.port);
    let kind = |create| Options::new(&url).create(create).open().unwrap_err().kind();
    assert_eq!(kind(false), ErrorKind::StoreMissing);
    assert_eq!(kind(true), ErrorKind::StoreUnreadable);
    drop(cluster.options(&database, "").open().unwrap());
    assert_eq!(kind(false), ErrorKind::StoreUnreadable);
    grant(&raw, "app");
    let [one, other] = two(|| Options::new(&url));
    everything(&one, &other);
}

#[test]
fn a_schema_with_another_name() {
    let Some(cluster) = cluster() else { return };
    let database = cluster.database();
    let [one, other] = two(|| cluster.options(&database, "").schema("once \"key\""));
    everything(&one, &other);
    assert!(
        cluster
            .raw(&database)
            .texts("SELECT 1 FROM pg_namespace WHERE nspname = 'oncekey'")
            .is_empty()
    );
}

fn openssl(dir: &Path, arguments: &str) {
    let mut command = Command::new("openssl");
    let output = command.args(arguments.split(' ')).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn tls_with_the_wrong_authority_the_wrong_name_or_none_is_refused() {
    let Some(cluster) = cluster() else { return };
    let data = cluster.dir.join("data");
    for authority in ["ca", "other"] {
        openssl(
            &data,
            &format!(
                "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={authority} -keyout {authority}.key -out {authority}.pem"
            ),
        );
    }
    openssl(
        &data,
        "req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout server.key -out server.csr",
    );
    std::fs::write(data.join("ext"), "subjectAltName=DNS:localhost").unwrap();
    openssl(
        &data,
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out server.crt",
    );
    Command::new("chmod").arg("600").arg(data.join("server.key")).status().unwrap();
    if rustix::process::geteuid().is_root() {
        for file in ["server.key", "server.crt"] {
            Command::new("chown").arg("postgres").arg(data.join(file)).status().unwrap();
        }
    }
    let database = cluster.database();
    let raw = cluster.raw(&database);
    let tls = |on| {
        raw.run(&format!("ALTER SYSTEM SET ssl = {on}"));
        raw.run("SELECT pg_reload_conf()");
        while cluster.raw(&database).text("SHOW ssl") != on {
            std::thread::yield_now();
        }
    };
    tls("on");
    let pem = |authority: &str| std::fs::read(data.join(format!("{authority}.pem"))).unwrap();
    let options = |host: &str, authority: &str| {
        let url = format!(
            "host={host} port={} user=postgres dbname={database} sslmode=verify-full",
            cluster.port
        );
        Options::new(url).create(true).root_certificates(pem(authority))
    };
    let engine = options("localhost", "ca").open().unwrap();
    drop(claim(&engine, "a"));
    let secured = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE ssl AND application_name = 'oncekey'";
    assert!(raw.number(secured) >= 2);
    drop(engine);
    for (host, authority) in [("localhost", "other"), ("127.0.0.1", "ca")] {
        let refused = options(host, authority).open().unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unavailable, "{host} {authority}");
    }
    let wrong = options("localhost", "ca")
        .root_certificates("-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----");
    assert_eq!(wrong.open().unwrap_err().kind(), ErrorKind::InvalidInput);
    // The engine does not speak in the clear to a server without TLS.
    tls("off");
    assert!(options("localhost", "ca").open().is_err());
}

#[test]
fn a_url_and_its_password_are_shown_by_nothing() {
    let options = Options::new("postgres://user:hunter2@127.0.0.1:1/shop");
    let error = options.open().unwrap_err();
    // The first open of a stranger: nothing was there that could be reopened.
    let told = error.to_string();
    assert_eq!(told, "the store is unavailable: the server cannot be reached");
    for text in [format!("{options:?}"), format!("{error:?}"), told] {
        assert!(!text.contains("hunter2"), "{text}");
    }
    let wrong = Options::new("postgres://user:hunter2@host:port/shop").open().unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::InvalidInput);
    assert!(!format!("{wrong:?}").contains("hunter2"));
    assert_eq!(Options::new("").open().unwrap_err().kind(), ErrorKind::InvalidInput);
}
