//! `oncekey proxy` stands before any HTTP server and gives its requests idempotency keys: the layer
//! of `oncekey-http` around an upstream. docs/proxy.md says what that means.
#![forbid(unsafe_code)]

mod base;
mod command;
mod config;
mod front;
mod life;
mod report;
mod upstream;
mod wire;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;

use base::exit::Failure;
use command::{Cli, Command};
use config::{Config, LogFormat};

fn main() -> ExitCode {
    let Command::Proxy(arguments) = Cli::parse().command;
    match proxy(*arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn proxy(arguments: command::Proxy) -> Result<(), Failure> {
    let config = configuration(&arguments)?;
    if arguments.check {
        if arguments.print {
            print!("{}", config::print(&config));
        }
        config.warnings().iter().for_each(|warning| eprintln!("warning: {warning}"));
        return Ok(());
    }
    let json = match config.log.format {
        LogFormat::Auto => !std::io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    log(&config, json);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| Failure::failed(format!("cannot start the runtime: {error}")))?;
    let ended = runtime.block_on(life::run(config, json, move || configuration(&arguments)));
    // What still runs after the shutdown timeout is dropped.
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
    Ok(config)
}

/// What the layer and the engine log goes to standard error.
fn log(config: &Config, json: bool) {
    let builder = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(config.log.level)
        .with_ansi(std::io::stderr().is_terminal());
    if json { builder.json().init() } else { builder.init() }
}
