//! The C programs of `tests/c`, the example and the quick start, compiled and run.
//!
//! `ONCEKEY_C=asan` runs them under AddressSanitizer and LeakSanitizer, `ONCEKEY_C=valgrind` under
//! valgrind; `test.sh` does both. `CC` and `CXX` choose compilers. With `ONCEKEY_TEST_STORE=postgres` and the
//! feature `postgres` the programs get a database each instead of a directory.
#![allow(missing_docs, clippy::unwrap_used)]

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use oncekey_testing::postgres::{self, PostgresServer};

const MANIFEST: &str = env!("CARGO_MANIFEST_DIR");

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Plain,
    Sanitized,
    Valgrind,
}

fn mode() -> Mode {
    match env::var("ONCEKEY_C").as_deref() {
        Err(_) | Ok("") => Mode::Plain,
        Ok("asan") => Mode::Sanitized,
        Ok("valgrind") => Mode::Valgrind,
        Ok(other) => panic!("ONCEKEY_C is asan or valgrind, not {other}"),
    }
}

/// Where cargo put the libraries of this build: beside the directory of this test.
fn built() -> PathBuf {
    env::current_exe().unwrap().parent().unwrap().to_owned()
}

fn work() -> PathBuf {
    // One process, one directory: tests of other modes may run beside this one.
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("c-{}", std::process::id()));
    fs::create_dir_all(&path).unwrap();
    path
}

/// A directory with the shared library under the name that its SONAME asks for.
fn libraries() -> &'static Path {
    static LIBRARIES: OnceLock<PathBuf> = OnceLock::new();
    LIBRARIES.get_or_init(|| {
        let path = work().join("lib");
        fs::create_dir_all(&path).unwrap();
        let extension = if cfg!(target_os = "macos") { "dylib" } else { "so" };
        let built = built().join(format!("liboncekey_ffi.{extension}"));
        let linked = format!("liboncekey.{extension}");
        for name in [linked.as_str(), "liboncekey.so.1", "liboncekey.1.dylib"] {
            let link = path.join(name);
            let _ = fs::remove_file(&link);
            std::os::unix::fs::symlink(&built, link).unwrap();
        }
        path
    })
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{stdout}\n{stderr}", output.status);
    stdout.into_owned()
}

fn compiler(variable: &str, default: &str) -> Command {
    let mut command = Command::new(env::var(variable).unwrap_or_else(|_| default.into()));
    command.args(["-Wall", "-Wextra", "-Werror", "-g", "-O1", "-pthread"]);
    command.arg("-I").arg(Path::new(MANIFEST).join("include"));
    command
}

enum Linked {
    Shared,
    Static,
}

fn compile(source: &Path, linked: Linked) -> PathBuf {
    let program = work().join(source.file_stem().unwrap());
    let mut command = if source.extension().is_some_and(|extension| extension == "cpp") {
        let mut command = compiler("CXX", "c++");
        command.args(["-std=c++17", "-pedantic", "-Wno-missing-field-initializers"]);
        command
    } else {
        let mut command = compiler("CC", "cc");
        command.args(["-std=c11", "-pedantic", "-D_POSIX_C_SOURCE=200809L"]);
        command
    };
    if mode() == Mode::Sanitized {
        command.arg("-fsanitize=address,leak").arg("-fno-omit-frame-pointer");
    }
    command.arg("-o").arg(&program).arg(source);
    match linked {
        Linked::Static => {
            command.arg(built().join("liboncekey_ffi.a"));
            command.args(["-lm", "-ldl", "-lpthread"]);
        }
        Linked::Shared => {
            let libraries = libraries();
            command.arg("-L").arg(libraries).arg("-loncekey");
            command.arg(format!("-Wl,-rpath,{}", libraries.display()));
        }
    }
    run(&mut command);
    program
}

/// A command that runs a compiled program in the mode that was asked for.
fn checked(program: &Path) -> Command {
    let is = |name: &str| program.file_name().is_some_and(|file| file == name);
    // glibc never runs, nor frees, thread-local destructors that are registered by a thread's last ones.
    // Under valgrind a forked child, which frees nothing, counts as leaking; AddressSanitizer looks at
    // the parent alone.
    let leaks = is("thread_exit") || is("fork") && mode() == Mode::Valgrind;
    let mut command = match mode() {
        Mode::Valgrind => {
            let mut command = Command::new("valgrind");
            command.args(["--quiet", "--error-exitcode=9"]);
            command.arg(if leaks { "--leak-check=no" } else { "--leak-check=full" });
            command.args(["--errors-for-leak-kinds=definite,indirect"]);
            command.arg("--show-leak-kinds=definite,indirect");
            command.args(["--child-silent-after-fork=yes", "--fair-sched=yes"]);
            command.arg(program);
            command
        }
        Mode::Plain | Mode::Sanitized => {
            let mut command = Command::new(program);
            command.envs(leaks.then_some(("ASAN_OPTIONS", "detect_leaks=0")));
            command
        }
    };
    // `LD_LIBRARY_PATH` comes before the path in the program, and may lead to another build of the
    // library.
    command.env_remove("LD_LIBRARY_PATH");
    command
}

/// The URL of a database of its own, where databases were asked for.
fn database(server: &PostgresServer) -> String {
    if !cfg!(feature = "postgres") {
        panic!("a library without the feature postgres opens no database");
    }
    server.url(&server.database())
}

/// Runs a compiled program with a store of its own. Where there is none, it returns an empty
/// output.
fn execute(program: &Path) -> Option<String> {
    let place = match postgres::is_chosen() {
        true => database(PostgresServer::of_this_process()?).into(),
        false => program.with_extension("store"),
    };
    let printed = run(checked(program).arg(&place).current_dir(work()));
    for path in ["store", "store-backup", "store-sizes"] {
        let _ = fs::remove_dir_all(program.with_extension(path));
    }
    Some(printed)
}

fn test(name: &str) {
    let source = Path::new(MANIFEST).join("tests/c").join(name).with_extension("c");
    execute(&compile(&source, Linked::Shared));
}

/// The programs that are about the files of a store.
fn test_of_directories(name: &str) {
    match postgres::is_chosen() {
        true => println!("LEFT OUT: {name} is about the files of a directory"),
        false => test(name),
    }
}

#[test]
fn outcomes() {
    test("outcomes");
}

#[test]
fn misuse_is_refused() {
    test("misuse");
}

#[test]
fn a_forked_child_touches_nothing() {
    test("fork");
}

#[test]
fn a_process_without_standard_streams_prints_into_no_file_of_the_store() {
    test_of_directories("low_descriptors");
}

#[test]
#[cfg_attr(not(feature = "control-socket"), ignore = "the library has no control sockets")]
fn operators_ask_a_program_that_holds_a_store() {
    test("control");
}

#[test]
fn threads_share_one_engine() {
    test("threads");
}

#[test]
fn the_last_destructors_of_a_thread_may_call_everything() {
    test_of_directories("thread_exit");
    for backup in fs::read_dir(work()).unwrap().map(|entry| entry.unwrap().path()) {
        if backup.to_string_lossy().contains("thread_exit.backup-") {
            fs::remove_dir_all(backup).unwrap();
        }
    }
}

#[test]
fn a_thread_local_of_cpp_may_call_everything() {
    execute(&compile(&Path::new(MANIFEST).join("tests/c/thread_local.cpp"), Linked::Shared));
}

#[test]
fn completion_queues() {
    test("queue");
}

#[test]
fn requests_have_the_fingerprint_of_the_http_layer() {
    test("requests");
}

#[test]
fn the_layout_is_that_of_the_abi_version() {
    test("layout");
}

#[test]
fn the_static_library_links() {
    let source = Path::new(MANIFEST).join("tests/c/requests.c");
    let renamed = work().join("static.c");
    fs::write(&renamed, format!("#include \"{}\"\n", source.display())).unwrap();
    execute(&compile(&renamed, Linked::Static));
}

#[test]
fn ten_thousand_operations_from_one_thread() {
    // A begin has some seconds to be answered by a server, which shares this machine with a debug build.
    let operations = if postgres::is_chosen() { 1_000 } else { 10_000 };
    let source = Path::new(MANIFEST).join("examples/outstanding.c");
    let counted = work().join("outstanding.c");
    let text = format!("#define OPERATIONS {operations}\n#include \"{}\"\n", source.display());
    fs::write(&counted, text).unwrap();
    let printed = execute(&compile(&counted, Linked::Shared));
    let expected = format!("executed {operations} of {operations}\n");
    assert!(printed.is_none_or(|printed| printed == expected));
}

#[test]
#[cfg_attr(
    not(feature = "inject-panic"),
    ignore = "needs the feature inject-panic: engine-ffi/test.sh runs it"
)]
fn no_panic_gets_out() {
    test("panic");
}

#[test]
fn the_header_is_c11_and_cpp17() {
    let source = "#include <oncekey.h>\nint main() { return oncekey_abi_version() != ONCEKEY_ABI_VERSION; }\n";
    for (variable, default, standard, extension) in
        [("CC", "cc", "-std=c11", "c"), ("CXX", "c++", "-std=c++17", "cpp")]
    {
        let path = work().join("header").with_extension(extension);
        fs::write(
            &path,
            source.replace("main()", if extension == "c" { "main(void)" } else { "main()" }),
        )
        .unwrap();
        let mut command = compiler(variable, default);
        command.args([standard, "-pedantic", "-fsyntax-only"]).arg(&path);
        run(&mut command);
    }
}

fn quick_start() -> String {
    let page = fs::read_to_string(Path::new(MANIFEST).join("../docs/c-api.md")).unwrap();
    let code = page.split_once("<!-- quick start: C -->\n```c\n").unwrap().1;
    code.split_once("```").unwrap().0.to_owned()
}

#[test]
fn the_quick_start_runs_on_a_database_by_its_url_alone() {
    if !postgres::is_chosen() {
        return;
    }
    let Some(server) = PostgresServer::of_this_process() else { return };
    let source = work().join("quick_start_shared.c");
    fs::write(&source, quick_start().replace("./idempotency", &database(server))).unwrap();
    let program = compile(&source, Linked::Shared);
    for expected in ["executed\n", "give this again: 201 created\n"] {
        assert_eq!(run(checked(&program).env("ONCEKEY_LEAK_CHECK", "1")), expected);
    }
}

#[test]
fn the_quick_start_runs_and_is_short() {
    let code = &quick_start();
    assert!(code.lines().count() <= 50, "{} lines", code.lines().count());
    let source = work().join("quick_start.c");
    fs::write(&source, code).unwrap();
    let program = compile(&source, Linked::Shared);
    let directory = work().join("quick-start");
    fs::create_dir_all(&directory).unwrap();
    let store = directory.join("idempotency");
    let run_it = || {
        let mut command = checked(&program);
        command.env("ONCEKEY_LEAK_CHECK", "1").current_dir(&directory);
        command
    };
    let print = || run(&mut run_it());
    for expected in ["executed\n", "give this again: 201 created\n"] {
        assert_eq!(print(), expected);
    }
    // The outcomes that need another owner, and a store that cannot be opened.
    let key = oncekey::Key::new("tenant-7", "order-4711").unwrap();
    for (body, expected) in [
        ("2 apples", "an attempt died, outcome unknown\n"),
        ("3 apples", "another request has this key\n"),
    ] {
        fs::remove_dir_all(&store).unwrap();
        let engine = oncekey::Engine::open(&store).unwrap();
        let parts = oncekey::Fingerprint::builder().part("method", "POST").part("body", body);
        drop(engine.begin(&key, parts.finish()).wait().unwrap());
        engine.close().unwrap();
        assert_eq!(print(), expected);
    }
    fs::remove_dir_all(&store).unwrap();
    fs::write(&store, "not a directory").unwrap();
    let refused = run_it().output().unwrap();
    // 1 is the program's own answer; valgrind, LeakSanitizer and the check of handles have others.
    assert_eq!(refused.status.code(), Some(1), "{}", String::from_utf8_lossy(&refused.stderr));
    fs::remove_file(&store).unwrap();
    forgotten_handles_are_named(code, &directory);
    fs::remove_dir_all(directory).unwrap();
}

/// Each call that frees has its reason: without it the check of handles complains.
fn forgotten_handles_are_named(code: &str, directory: &Path) {
    if !cfg!(feature = "leak-check") {
        return;
    }
    for (free, kind) in [
        ("oncekey_buffer_free(&answer.data);", "buffer"),
        ("oncekey_orphan_free(answer.orphan);", "orphan"),
        ("oncekey_fingerprint_free(fingerprint);", "fingerprint"),
        ("oncekey_engine_free(engine);", "engine"),
    ] {
        let source = work().join(format!("forgets_{kind}.c"));
        assert!(code.contains(free), "{free}");
        fs::write(&source, code.replace(free, "")).unwrap();
        let program = compile(&source, Linked::Shared);
        let key = oncekey::Key::new("tenant-7", "order-4711").unwrap();
        let store = directory.join("idempotency");
        let engine = oncekey::Engine::open(&store).unwrap();
        let parts = oncekey::Fingerprint::builder().part("method", "POST").part("body", "2 apples");
        match engine.begin(&key, parts.finish()).wait().unwrap() {
            oncekey::Begin::Claimed(claim) if kind == "buffer" => {
                claim.complete(b"201 created").wait().unwrap();
            }
            other => drop(other),
        }
        engine.close().unwrap();
        let mut command = Command::new(&program);
        command.env("ONCEKEY_LEAK_CHECK", "1").current_dir(directory);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(8), "{kind}: {said}");
        assert!(said.contains(&format!("1 of {kind}")), "{kind}: {said}");
        fs::remove_dir_all(store).unwrap();
    }
}
