//! The modes of directories and files.

use super::*;

#[test]
fn directories_are_0700_and_files_0600_whatever_the_umask() {
    for child in ["modes::child_without_umask", "modes::child_with_every_umask"] {
        let directory = scratch();
        in_child(child, directory.path());
        let mut checked = 0;
        let mut folders = vec![directory.path().join("parent")];
        while let Some(folder) = folders.pop() {
            assert_eq!(mode(&folder), 0o700, "{}", folder.display());
            for entry in fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                assert_eq!(mode(&path), 0o600, "{}", path.display());
                checked += 1;
            }
        }
        assert!(checked > 8, "{checked} files");
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn fill(directory: &Path) {
    let engine = options().open(directory.join("parent/store")).unwrap();
    pair(&engine, "k").unwrap();
    engine.fold().unwrap();
    engine.backup_to(directory.join("parent/backup")).unwrap();
    let existing = |name: &str| {
        let path = directory.join("parent").join(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    };
    engine.backup_to(existing("existing")).unwrap();
    engine.close().unwrap();
    let reader = options().read(directory.join("parent/store")).unwrap();
    reader.copy_to(directory.join("parent/below/copy")).unwrap();
    reader.copy_to(existing("existing copy")).unwrap();
}

#[test]
#[ignore = "run by directories_are_0700…"]
fn child_without_umask() {
    // SAFETY: changes an attribute of this process, which runs nothing else.
    unsafe { libc::umask(0) };
    fill(&given());
}

#[test]
#[ignore = "run by directories_are_0700…"]
fn child_with_every_umask() {
    // SAFETY: as above.
    unsafe { libc::umask(0o777) };
    fill(&given());
}

#[test]
fn wider_modes_are_narrowed_by_an_open_that_succeeds_and_by_no_other() {
    let directory = scratch();
    let path = directory.path().join("store");
    let engine = options().open(&path).unwrap();
    pair(&engine, "k").unwrap();
    engine.close().unwrap();
    fs::write(path.join("notes.txt"), "theirs").unwrap();
    let widen = || {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        for entry in fs::read_dir(&path).unwrap() {
            fs::set_permissions(entry.unwrap().path(), fs::Permissions::from_mode(0o644)).unwrap();
        }
    };
    widen();
    let bytes = fs::read(path.join("store.redb")).unwrap();
    fs::write(path.join("store.redb"), b"no store").unwrap();
    options().open(&path).unwrap_err();
    assert_eq!((mode(&path), mode(&path.join("store.redb"))), (0o755, 0o644));
    fs::write(path.join("store.redb"), bytes).unwrap();
    let engine = reopened(|| options().open(&path));
    assert!(is_replayed(&engine, "k"));
    for entry in fs::read_dir(&path).unwrap() {
        let entry = entry.unwrap().path();
        let theirs = entry.ends_with("notes.txt");
        assert_eq!(mode(&entry), if theirs { 0o644 } else { 0o600 }, "{}", entry.display());
    }
    assert_eq!(mode(&path), 0o700);
}
