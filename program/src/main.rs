//! `oncekey proxy` stands in front of any HTTP server and gives its requests idempotency keys: it runs the
//! layer of `oncekey-http` around an upstream. docs/proxy.md describes the behaviour.
#![forbid(unsafe_code)]

mod base;
mod command;
mod config;
mod front;
mod life;
mod operate;
mod report;
mod upstream;
mod wire;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::FromArgMatches;

use base::exit::{Exit, Failure};
use base::say::say;
use command::{Cli, Command};
use config::{Config, LogFormat};
use front::listener::Passed;
use operate::Output;

/// A thread often frees memory that another thread allocated, which is slower in glibc's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let matches = Cli::whole().try_get_matches();
    let cli = match matches.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => return misused(&error),
    };
    let as_json = cli.output.is_json();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(as_json),
    }
}

/// Prints help, the version, or a mistake of the command line; a mistake in JSON if `--json` was given.
fn misused(error: &clap::Error) -> ExitCode {
    let asked = |argument: String| ["--json", "--ndjson"].contains(&argument.as_str());
    if error.exit_code() != 0 && std::env::args().any(asked) {
        let text = error.render().to_string();
        let line = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        return Failure::usage(line).report(true);
    }
    // An error here means that no reader is left.
    let _ = error.print();
    if error.exit_code() == 0 { ExitCode::SUCCESS } else { Exit::Usage.code().into() }
}

fn run(Cli { output, command }: Cli) -> Result<(), Failure> {
    match command {
        Command::Proxy(arguments) => proxy(*arguments, &output),
        Command::Check(check) => proxy(check.as_proxy(), &output),
        Command::Stats(stats) => stats.run(&output),
        Command::Ls(ls) => ls.run(&output),
        Command::Get(get) => get.run(&output),
        Command::Orphans(orphans) => orphans.run(&output),
        Command::Resolve(resolve) => resolve.run(&output),
        Command::Backup(backup) => backup.run(&output),
        Command::Restore(restore) => restore.run(&output),
        Command::Verify(verify) => verify.run(&output),
        Command::Expiry(expiry) => expiry.run(&output),
        Command::Export(export) => export.run(&output),
        Command::Doctor(doctor) => doctor.run(&output),
        Command::Top(top) => top.run(&output),
        Command::Ctl(ctl) => ctl.run(&output),
        Command::Console(console) => console.run(&output),
        Command::Health(health) => health.run(&output),
        Command::Completions(completions) => completions.run(Cli::whole(), &output),
        Command::Man(man) => man.run(Cli::whole(), &output),
    }
}

fn proxy(arguments: command::Proxy, output: &Output) -> Result<(), Failure> {
    let config = configuration(&arguments)?;
    if arguments.check {
        life::check(&config)?;
        if arguments.print {
            output.bytes(config::print(&config).as_bytes())?;
        }
        let warnings = config.warnings();
        warnings.iter().for_each(|warning| say(&format!("warning: {warning}")));
        return match arguments.strict && !warnings.is_empty() {
            true => Err(Failure::config(Vec::new())),
            false => Ok(()),
        };
    }
    let json = match config.log.format {
        LogFormat::Auto => !std::io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    log(&config, json);
    let ended = serve(config, json, arguments);
    if output.is_json() { ended } else { ended.map_err(Failure::log) }
}

fn serve(config: Config, json: bool, arguments: command::Proxy) -> Result<(), Failure> {
    let passed = Passed::take();
    // Connections of clients are served by threads of their own.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime =
        runtime.map_err(|error| Failure::failed(format!("cannot start the runtime: {error}")))?;
    let ended = runtime.block_on(life::run(
        config,
        json,
        passed,
        Box::new(move || configuration(&arguments)),
    ));
    // Drops the tasks that still run after the shutdown timeout.
    runtime.shutdown_background();
    ended
}

fn configuration(arguments: &command::Proxy) -> Result<Config, Failure> {
    let mut config = Config::default();
    if let Some(path) = &arguments.config {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::usage(format!("cannot read {name}: {error}")))?;
        config::read(&mut config, &name, &text, |policy| arguments.apply_policy(policy))
            .map_err(Failure::config)?;
    }
    arguments.apply_policy(&mut config.policy);
    arguments.apply(&mut config);
    config.check().map_err(Failure::usage)?;
    if cfg!(not(feature = "otel")) && config.traces.collector.is_some() {
        let text = "[traces] collector needs a program that was built with --features otel";
        return Err(Failure::usage(text));
    }
    Ok(config)
}

/// Sends the log of the layer and of the engine to standard error.
fn log(config: &Config, json: bool) {
    let builder = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(config.log.level)
        .with_ansi(std::io::stderr().is_terminal());
    if json { builder.json().init() } else { builder.init() }
}
