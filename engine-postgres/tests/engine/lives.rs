//! Engines open, close, die and lose their connections; the others go on.

use super::*;

#[test]
fn closed_engines_leave_orphans_at_once_and_answer_closed() {
    let Some([one, other]) = fleet(|options| options) else { return };
    let held = claim(&one, "a");
    assert_eq!(one.close().unwrap().in_flight, 1);
    assert_eq!(begin_error(&one, "b").kind(), ErrorKind::Closed);
    assert_eq!(one.close().unwrap_err().kind(), ErrorKind::Closed);
    let orphan = orphan(&other, "a");
    let failed = held.complete(b"late").wait().unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Closed);
    orphan.take_over().wait().unwrap().complete(b"done").wait().unwrap();
    assert_eq!(other.backup_to("/nowhere").unwrap_err().kind(), ErrorKind::Unsupported);
    other.fold().unwrap();
    other.sweep().unwrap();
    assert_eq!(other.stats().taken_over, 1);
}

#[test]
fn a_reopened_engine_leaves_orphans_that_their_owners_may_complete() {
    let Some([one, other]) = fleet(|options| options) else { return };
    let held = claim(&one, "a");
    one.reopen().unwrap();
    assert!(matches!(begin(&other, "a"), Begin::Orphaned(_)));
    assert!(matches!(begin(&one, "a"), Begin::Orphaned(_)));
    held.complete(b"late").wait().unwrap();
    assert_eq!(replay(&other, "a"), b"late");
    claim(&one, "b").complete(b"new").wait().unwrap();
}

#[test]
fn many_that_open_a_new_store_at_once_share_it() {
    let Some(cluster) = cluster() else { return };
    let database = cluster.database();
    let engines: Vec<Engine> = std::thread::scope(|scope| {
        let opening: Vec<_> = (0..6)
            .map(|_| scope.spawn(|| cluster.options(&database, "").open().unwrap()))
            .collect();
        opening.into_iter().map(|opening| opening.join().unwrap()).collect()
    });
    claim(&engines[0], "a").complete(b"done").wait().unwrap();
    for engine in &engines {
        assert_eq!(replay(engine, "a"), b"done");
    }
}

#[test]
fn a_name_that_comes_again_ends_its_predecessor_which_goes_on_without_it() {
    let Some(cluster) = cluster() else { return };
    let database = cluster.database();
    let open = |lease| {
        let options = cluster.options(&database, "").instance_name("pod-3");
        options.lease(Duration::from_secs(lease)).open().unwrap()
    };
    let first = open(1);
    let held = claim(&first, "a");
    let second = open(600);
    assert_eq!(second.orphans().unwrap().len(), 1, "listed before anything asks for it");
    assert!(matches!(begin(&second, "a"), Begin::Orphaned(_)), "no lease is waited for");
    held.complete(b"it lived").wait().unwrap();
    assert_eq!(replay(&second, "a"), b"it lived");
    // The first engine notices, and goes on as another instance.
    let other = claim(&first, "b");
    assert!(matches!(begin(&second, "b"), Begin::Locked(_)));
    other.complete(b"done").wait().unwrap();
    drop(open(600));
}

#[test]
fn an_instance_that_dies_leaves_orphans_after_its_lease() {
    let Some(cluster) = cluster() else { return };
    let database = cluster.database();
    let engine = oncekey::fleet::Options {
        lease: Duration::from_secs(1),
        upkeep_interval: Duration::from_secs(3_600),
        ..Default::default()
    };
    let living = cluster.options(&database, "").engine(engine).open().unwrap();
    // Stands for a killed process: its instance exists, and no process renews it.
    let dead = cluster.open(&database, "", Duration::from_secs(1));
    let image = dead.claim(7);
    dead.surely(vec![image]);
    let start = std::time::Instant::now();
    // Neither the living engine nor a new one has to wait for upkeep.
    while living.orphans().unwrap().is_empty() {
        assert!(start.elapsed() < Duration::from_secs(60), "nobody declared it ended");
    }
    assert_eq!(cluster.options(&database, "").open().unwrap().orphans().unwrap().len(), 1);
}

#[test]
fn cut_connections_cost_no_answer_and_no_second_execution() {
    let Some(cluster) = cluster() else { return };
    let database = cluster.database();
    // Even on a slow machine no caller runs out of patience.
    let patient = Duration::from_secs(120);
    let [one, other] = [(); 2].map(|()| {
        let engine = oncekey::fleet::Options {
            overload_after: patient,
            settle_for: patient,
            ..Default::default()
        };
        cluster.options(&database, "").engine(engine).open().unwrap()
    });
    let raw = cluster.raw("postgres");
    let cut = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'oncekey' AND datname = '{database}'"
    );
    std::thread::scope(|scope| {
        let workers: Vec<_> = [&one, &other]
            .into_iter()
            .enumerate()
            .map(|(at, engine)| {
                scope.spawn(move || {
                    for number in 0..60 {
                        let name = format!("{at}-{number}");
                        claim(engine, &name).complete(name.as_bytes()).wait().unwrap();
                    }
                })
            })
            .collect();
        // Connections are cut wherever a statement happens to be.
        let mut pause = 30;
        while workers.iter().any(|worker| !worker.is_finished()) {
            raw.run(&cut);
            pause = (pause * 7 / 6).min(500);
            std::thread::sleep(Duration::from_millis(pause));
        }
    });
    for (at, engine) in [&other, &one].into_iter().enumerate() {
        for number in 0..60 {
            let name = format!("{at}-{number}");
            assert_eq!(replay(engine, &name), name.as_bytes());
        }
    }
}
