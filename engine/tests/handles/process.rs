//! A process whose standard streams are closed, and one that may not write large files.

use super::*;

#[test]
fn no_file_of_the_store_gets_the_number_of_a_standard_stream() {
    let directory = scratch();
    in_child("process::child_closes_its_streams", directory.path());
}

#[test]
#[ignore = "run by no_file_of_the_store…"]
fn child_closes_its_streams() {
    let directory = given();
    let mut report = fs::File::create(directory.join("report")).unwrap();
    assert!(report.as_raw_fd() > 2);
    // Kept, so that this test can tell its outcome.
    // SAFETY: plain calls on the streams of this process, which nothing else uses.
    let kept: Vec<_> =
        (0..3).map(|fd| unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 100) }).collect();
    // SAFETY: as above.
    let close = || (0..3).for_each(|fd| assert!(unsafe { libc::close(fd) } <= 0));
    close();
    let path = directory.join("store");
    let engine = options().open(&path).unwrap();
    let mut below = standard(&path);
    for number in 0..1_500 {
        pair(&engine, &format!("k{number}")).unwrap();
    }
    engine.fold().unwrap();
    engine.backup_to(directory.join("backup")).unwrap();
    engine.reopen().unwrap();
    below.extend(standard(&directory));
    // A host may close the streams later, too. Its output must not reach the store.
    close();
    for number in 0..1_500 {
        pair(&engine, &format!("later{number}")).unwrap();
    }
    engine.fold().unwrap();
    below.extend(standard(&directory));
    engine.close().unwrap();
    writeln!(report, "{below:?}").unwrap();
    for (fd, kept) in kept.iter().enumerate() {
        // SAFETY: as above.
        assert!(unsafe { libc::dup2(*kept, fd as i32) } >= 0);
    }
    assert!(below.is_empty(), "{below:?}");
}

/// The descriptors below 3 that lie under `directory`.
fn standard(directory: &Path) -> Vec<PathBuf> {
    let link = |fd| fs::read_link(format!("/proc/self/fd/{fd}"));
    (0..3).filter_map(|fd| link(fd).ok()).filter(|path| path.starts_with(directory)).collect()
}

/// With `SIGXFSZ` ignored a write beyond the limit fails, and does not end the process.
#[test]
fn a_limit_of_the_size_of_files_is_put_off_like_a_full_disk() {
    let directory = scratch();
    in_child("process::child_with_a_limit_of_the_size_of_files", directory.path());
    let engine = options().open(directory.path().join("store")).unwrap();
    let told = fs::read_to_string(directory.path().join("acknowledged")).unwrap();
    assert!(told.lines().count() > 10);
    for key in told.lines() {
        assert!(is_replayed(&engine, key), "{key}");
    }
}

#[test]
#[ignore = "run by a_limit_of_the_size_of_files…"]
fn child_with_a_limit_of_the_size_of_files() {
    let directory = given();
    let engine = options().open(directory.join("store")).unwrap();
    let mut told = fs::File::create(directory.join("acknowledged")).unwrap();
    let mut acknowledged = |key: &str| writeln!(told, "{key}").unwrap();
    let limit = |bytes| {
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: plain calls about this process.
        unsafe {
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &limit), 0);
        }
    };
    for number in 0..20 {
        pair(&engine, &format!("before{number}")).unwrap();
        acknowledged(&format!("before{number}"));
    }
    engine.fold().unwrap();
    limit(6 << 20);
    let mut refused = Vec::new();
    for number in 0..20_000 {
        let key = format!("k{number}");
        match pair(&engine, &key) {
            Ok(()) => acknowledged(&key),
            Err(error) => {
                refused.push(error);
                if refused.len() > 3 {
                    break;
                }
            }
        }
    }
    assert!(refused.len() > 3, "the limit is met");
    assert!(refused.iter().all(|error| error.contains("StoreFull")), "{refused:?}");
    limit(libc::RLIM_INFINITY);
    let healed = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        pair(&engine, "healed").is_ok()
    });
    assert!(healed, "{:?}", engine.fold());
    acknowledged("healed");
}
