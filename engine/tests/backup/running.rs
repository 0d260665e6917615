//! Backups of an engine in use, on the disk of the machine.

use super::*;

fn real() -> Options {
    Options::new().segment_bytes(4 << 20).recent_bytes(1 << 20)
}

fn fill(engine: &Engine, keys: std::ops::Range<u32>) {
    let pending: Vec<_> = keys
        .map(|number| {
            let key = Key::new("", format!("k{number}")).unwrap();
            let begun = engine.begin(&key, Fingerprint::builder().finish()).wait().unwrap();
            let Begin::Claimed(claim) = begun else { panic!("{begun:?}") };
            claim.complete(&[7; 4096])
        })
        .collect();
    for pending in pending {
        pending.wait().unwrap();
    }
}

/// A backup that has begun to copy, on a thread of its own.
fn begin_backup(engine: &Engine, target: PathBuf) -> thread::JoinHandle<oncekey::Result<()>> {
    let copying = thread::spawn({
        let engine = engine.clone();
        move || engine.backup_to(target)
    });
    while engine.stats().backup_bytes_copied == 0 {
        assert!(!copying.is_finished());
        thread::sleep(Duration::from_millis(1));
    }
    copying
}

/// An engine with 500 records, and a backup of it that copies one byte a second.
fn standing_still(directory: &Path) -> (Engine, thread::JoinHandle<oncekey::Result<()>>) {
    let engine = real().backup_bytes_per_second(Some(1)).open(directory.join("store")).unwrap();
    fill(&engine, 0..500);
    let copying = begin_backup(&engine, directory.join("copy"));
    (engine, copying)
}

/// While a backup stands still, begins and completions go on, the store is folded and swept, and
/// the progress is told. A close ends the backup, and the rest of it is removed.
#[test]
fn a_backup_holds_up_nobody_and_ends_with_the_engine() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, copying) = standing_still(directory.path());
    let folds = engine.stats().folds;
    fill(&engine, 500..1_000);
    engine.fold().unwrap();
    engine.sweep().unwrap();
    let stats = engine.stats();
    assert!(!copying.is_finished() && stats.folds > folds);
    assert_eq!(stats.backups, 1);
    assert!(stats.backup_bytes_copied < stats.backup_bytes && stats.backup_bytes > 2_000_000);
    engine.close().unwrap();
    assert_eq!(copying.join().unwrap().unwrap_err().kind(), ErrorKind::Closed);
    let stats = engine.stats();
    assert_eq!((stats.backups, stats.backup_bytes, stats.backup_bytes_copied), (0, 0, 0));
    assert!(!directory.path().join("copy").exists());
}

/// The files that it reads belong to the reopened store, which may give their space back.
#[test]
fn a_reopening_ends_a_backup() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, copying) = standing_still(directory.path());
    engine.reopen().unwrap();
    assert_eq!(copying.join().unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(!directory.path().join("copy").exists());
    fill(&engine, 500..600);
}

/// The copy holds the store as it was when the copy was asked for.
#[test]
fn a_backup_under_load_holds_everything_that_was_acknowledged_before() {
    let directory = tempfile::tempdir().unwrap();
    let engine = real().backup_bytes_per_second(None).open(directory.path().join("store")).unwrap();
    fill(&engine, 0..1_000);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in (10_000..).take_while(|_| !over.load(Ordering::SeqCst)) {
                fill(&engine, number..number + 1);
            }
        });
        engine.backup_to(directory.path().join("copy")).unwrap();
        over.store(true, Ordering::SeqCst);
    });
    let copy = real().open_existing(directory.path().join("copy")).unwrap();
    for number in 0..1_000 {
        let key = Key::new("", format!("k{number}")).unwrap();
        let begun = copy.begin(&key, Fingerprint::builder().finish()).wait().unwrap();
        assert!(matches!(begun, Begin::Replay(_)), "{number}: {begun:?}");
    }
}

/// A process is killed during its backup; the directory opens as no store.
#[test]
fn a_backup_of_a_killed_process_opens_as_no_store() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = this_test("running::child_backs_up_slowly")
        .env("ONCEKEY_DIRECTORY", directory.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let copy = directory.path().join("copy");
    let started = |path: &Path| {
        let records = |entry: fs::DirEntry| entry.file_name().to_string_lossy().contains("run-");
        fs::read_dir(path).is_ok_and(|mut names| names.any(|entry| entry.is_ok_and(records)))
    };
    while !started(&copy) {
        thread::sleep(Duration::from_millis(5));
        assert!(child.try_wait().unwrap().is_none(), "the child ended");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    for _ in 0..2 {
        let error = real().open(&copy).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StoreForeign, "{error}");
    }
    assert_eq!(oncekey::verify(&copy).unwrap_err().kind(), ErrorKind::StoreForeign);
    let engine = real().open_existing(directory.path().join("store")).unwrap();
    engine.backup_to(&copy).unwrap();
    assert_eq!(real().open_existing(&copy).unwrap().stats().folded_records, 1_000);
}

#[test]
#[ignore = "run by a_backup_of_a_killed_process…"]
fn child_backs_up_slowly() {
    let directory = PathBuf::from(std::env::var_os("ONCEKEY_DIRECTORY").unwrap());
    let engine =
        real().backup_bytes_per_second(Some(256 << 10)).open(directory.join("store")).unwrap();
    fill(&engine, 0..1_000);
    engine.backup_to(directory.join("copy")).unwrap();
}
