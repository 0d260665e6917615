//! The time of the store: expiry, jumps of its clock, and spans of any length.

use super::*;

/// The drop of a claim is on its way while another process declares its owner ended.
#[test]
fn an_orphan_is_one_since_its_owner_ended_if_that_was_earlier() {
    let Some(cluster) = cluster() else { return };
    let opened = cluster.store();
    let (image, version) = opened.granted(1);
    let started = only(opened.read(1)).started_at;
    opened
        .raw
        .run("UPDATE oncekey.instance SET ended_at = (SELECT started_at + 1 FROM oncekey.key)");
    std::thread::sleep(Duration::from_millis(20));
    let mut dropped = change(&image, version, RowState::Orphan);
    dropped.expires_in = Some(1_000_000);
    opened.surely(vec![dropped]);
    let row = only(opened.read(1));
    assert_eq!((row.since, row.expires_at), (Some(started + 1), Some(started + 1_000_001)));
}

/// A record becomes an orphan without a write when its owner ends or its deadline passes. Then its TTL passes.
#[test]
fn expired_a_claim_that_nobody_declared_an_orphan_is_only_claimed_anew() {
    let Some(cluster) = cluster() else { return };
    let me = cluster.store();
    let now = "(extract(epoch FROM clock_timestamp())*1000)::bigint";
    let end = |owner: u64, ago: &str| {
        me.raw.run(&format!("UPDATE oncekey.instance SET ended_at = {ago} WHERE id = {owner}"));
    };
    let (hour, ttl) = (3_600_000, 86_400_000);
    // How long ago the owner ended, and the deadline passed. `None`: the owner lives, or there is
    // no deadline.
    for (number, ended, deadline, stands) in [
        (1, None, None, true),
        (2, Some(ttl - hour), None, true),
        (3, Some(ttl + hour), None, false),
        (4, None, Some(ttl - hour), true),
        (5, None, Some(ttl + hour), false),
        (6, Some(ttl - hour), Some(ttl + hour), false),
        (7, Some(ttl + hour), Some(ttl - hour), false),
        // The owner ended before the grant: an orphan since the grant.
        (8, Some(4 * ttl), None, false),
    ] {
        for of_another in [false, true] {
            let owner = cluster.open(&me.database, "", LEASE);
            let hash = number * 2 + u128::from(of_another);
            let (image, version) = owner.granted(hash);
            let ago =
                |span: Option<i64>| span.map_or("NULL".into(), |ago| format!("{now} - {ago}"));
            let (ended, deadline) = (ago(ended), ago(deadline));
            me.raw.run(&format!(
                "UPDATE oncekey.key SET started_at = {now} - 3 * ttl_ms, deadline = {deadline} WHERE version = {version}"
            ));
            end(owner.instance, &ended);
            let by = if of_another { &me } else { &owner };
            let row = only(by.read(hash));
            assert_eq!(row.has_expired(by.read(hash).now), !stands, "{number}");
            // A change alone and one of several run as different statements.
            let mut completed = by.surely(match number % 2 {
                0 => vec![change(&image, version, RowState::Completed)],
                _ => vec![change(&image, version, RowState::Completed), by.claim(1_000 + hash)],
            });
            completed.applied.retain(|applied| applied.hash == hash);
            assert_eq!(completed.applied.len(), usize::from(stands), "{number} {of_another}");
            if !stands {
                let told = completed.found.rows.iter().find(|row| row.hash == hash).unwrap();
                assert_eq!((told.version, told.state), (version, RowState::InFlight));
                let anew = RowImage { expected: version, ..me.claim(hash) };
                assert_eq!(me.surely(vec![anew]).applied.len(), 1, "{number}");
            }
        }
    }
}

#[test]
fn clock_jump_a_clock_that_went_30_days_ahead_changes_nothing() {
    let Some(cluster) = cluster() else { return };
    let opened = cluster.store();
    opened.raw.run("UPDATE oncekey.store SET high_time = high_time - 31::bigint * 86400000");
    let Err(Failure::Refused(error)) = opened.group(vec![opened.claim(1)]) else { panic!() };
    assert_eq!(error.kind(), ErrorKind::ClockJump);
    assert!(opened.raw.texts("SELECT hash FROM oncekey.key").is_empty());
    // Once one process has accepted the jump, all others open.
    let open = |accept| cluster.options(&opened.database, "").accept_clock_jump(accept).open();
    assert_eq!(open(false).unwrap_err().kind(), ErrorKind::ClockJump);
    open(true).unwrap();
    open(false).unwrap();
    assert_eq!(opened.surely(vec![opened.claim(1)]).applied.len(), 1);
}

#[test]
fn clock_back_no_decision_is_made_before_the_high_time() {
    let Some(cluster) = cluster() else { return };
    let opened = cluster.store();
    opened.raw.run("UPDATE oncekey.store SET high_time = high_time + 1000000");
    let high = opened.raw.number("SELECT high_time FROM oncekey.store");
    assert_eq!(opened.surely(vec![opened.claim(1)]).found.now as i64, high);
    assert_eq!(opened.read(1).now as i64, high);
}

#[test]
fn an_enormous_ttl_fails_nobody() {
    let Some(cluster) = cluster() else { return };
    let opened = cluster.store();
    let mut long = opened.claim(1);
    long.ttl = MAX_MILLIS;
    long.deadline_in = Some(MAX_MILLIS);
    let versions = opened.surely(vec![long.clone(), opened.claim(2)]).applied;
    let version = versions.iter().find(|applied| applied.hash == 1).unwrap().version;
    let mut complete = change(&long, version, RowState::Completed);
    complete.expires_in = Some(MAX_MILLIS);
    opened.surely(vec![complete]);
    let row = only(opened.read(1));
    assert_eq!(row.body.as_deref(), Some(&b"response"[..]));
    assert_eq!(
        opened.raw.number("SELECT leaf FROM oncekey.response"),
        8,
        "beyond the ring: the spare leaf"
    );
}
