//! Copies of a store that no process has open.

use super::*;

/// A store that was killed with records in the journal.
fn killed() -> Sim {
    let (sim, engine) = filled();
    complete(&engine, "journalled", b"last");
    let image = sim.on(sim.disk.crash(CrashMode::ProcessKill));
    image.disk.sync_all();
    image
}

fn copy(sim: &Sim, to: &str) -> oncekey::Result<()> {
    sim.options().read("/store").unwrap().copy_to(to)
}

fn is_whole(sim: &Sim, at: &str) {
    let engine = sim.options().open_existing(at).unwrap();
    holds_all(&engine);
    assert_eq!(replay(&engine, "journalled").response(), Some(&b"last"[..]));
}

/// The power fails at each operation of a copy, into a new directory and into an empty one.
#[test]
fn a_copy_that_was_interrupted_anywhere_is_refused_or_whole() {
    for is_there in [false, true] {
        let (mut missing, mut refused) = (0, 0);
        for nth in 0.. {
            let sim = killed();
            if is_there {
                sim.disk.create_dir("/copies/first".as_ref()).unwrap();
                sim.disk.sync_all();
            }
            sim.disk.inject(Fault::new(Ops::Changes, nth).on_path("/copies").power_off());
            let copied = copy(&sim, "/copies/first");
            if !sim.disk.is_powered_off() {
                copied.unwrap();
                sim.disk.clear_faults();
                is_whole(&sim, "/copies/first");
                break;
            }
            copied.unwrap_err();
            for mode in [
                CrashMode::ProcessKill,
                CrashMode::LoseAllUnsynced,
                CrashMode::PowerLoss { seed: nth },
            ] {
                let image = sim.on(sim.disk.crash(mode));
                let names = names(&image.disk, "/copies/first/");
                match image.options().open_existing("/copies/first") {
                    Ok(engine) => holds_all(&engine),
                    Err(error) if error.kind() == ErrorKind::StoreMissing => {
                        missing += 1;
                        let listed = image.disk.list("/copies/first".as_ref());
                        assert!(is_there || listed.is_err(), "{nth}: {names:?}");
                        assert!(names.iter().all(|name| name.ends_with("LOCK")), "{names:?}");
                    }
                    Err(error) => {
                        refused += 1;
                        assert!(error.to_string().contains("not finished"), "{nth}: {error}");
                        let again = image.options().open("/copies/first").unwrap_err();
                        assert_eq!(again.kind(), ErrorKind::StoreForeign);
                        if nth % 8 == 0 {
                            copy(&image, "/copies/first").unwrap();
                            is_whole(&image, "/copies/first");
                        }
                    }
                }
            }
            is_whole(&sim.on(sim.disk.crash(CrashMode::LoseAllUnsynced)), "/store");
        }
        println!("{missing} missing, {refused} refused");
        assert!(missing > 5 && refused > 30);
    }
}

#[test]
fn a_copy_that_fails_is_removed_and_may_be_tried_again() {
    let sim = killed();
    let (store, used) = (names(&sim.disk, "/store"), sim.disk.used_bytes());
    for part in ["/copy/store.redb", "/copy/records-", "/copy/run-", "/copy/journal"] {
        for errno in [Fault::EIO, Fault::ENOSPC] {
            let full = Fault::at_kind(OpKind::Write, 0).on_path(part).partial(4096).errno(errno);
            sim.disk.inject(full);
            let error = copy(&sim, "/copy").unwrap_err();
            let full = errno == Fault::ENOSPC;
            assert_eq!(error.kind() == ErrorKind::StoreFull, full, "{part}: {error}");
            for directory in ["/copy", "/copy.unmarked"] {
                sim.disk.open_dir(directory.as_ref()).unwrap_err();
            }
            assert_eq!(sim.disk.used_bytes(), used, "{part}");
        }
    }
    sim.disk.set_capacity(Some(used + 64 * 1024));
    let error = copy(&sim, "/copy").unwrap_err();
    assert!(error.kind() == ErrorKind::StoreFull && error.to_string().contains("needs"), "{error}");
    assert_eq!(sim.disk.used_bytes(), used);
    sim.disk.set_capacity(None);
    copy(&sim, "/copy").unwrap();
    is_whole(&sim, "/copy");
    assert_eq!(names(&sim.disk, "/store"), store);
}

#[test]
fn a_copy_goes_into_no_store_and_into_no_place_that_another_holds() {
    let sim = killed();
    let invalid = |to: &str| {
        let error = copy(&sim, to).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{to}: {error}");
    };
    sim.disk.put_file("/full/notes.txt", b"mine");
    for to in ["/store", "/full", "/store/journal-0099.seg", "/store/run-0000000000000005", "/"] {
        invalid(to);
    }
    sim.disk.create_dir("/empty".as_ref()).unwrap();
    let held = sim.disk.open_dir("/empty".as_ref()).unwrap();
    let lock = held.lock(oncekey::disk::Lockable::Created("LOCK")).unwrap();
    assert_eq!(copy(&sim, "/empty").unwrap_err().kind(), ErrorKind::StoreInUse);
    drop(lock);
    for to in ["/empty", "/store/in", "/new/."] {
        copy(&sim, to).unwrap();
        is_whole(&sim, to);
    }
    is_whole(&sim, "/store");
}
