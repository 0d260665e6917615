//! Runs a command beside a PostgreSQL server of its own: `with_postgres COMMAND [ARGUMENT]...`
//!
//! The command has `ONCEKEY_TEST_STORE=postgres` and the address of the server, without a database, in
//! `ONCEKEY_TEST_SERVER`. Where PostgreSQL is not installed, the program says so and runs nothing.

use std::process::{Command, ExitCode};

use oncekey_testing::postgres::{PostgresServer, program};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let Some(command) = arguments.next() else {
        eprintln!("with_postgres COMMAND [ARGUMENT]...");
        return ExitCode::FAILURE;
    };
    let Some(server) = PostgresServer::of_this_process() else { return ExitCode::SUCCESS };
    let status = Command::new(&command)
        .args(arguments)
        .env("ONCEKEY_TEST_STORE", "postgres")
        .env("ONCEKEY_TEST_SERVER", server.url("").trim_end_matches('/'))
        .env("ONCEKEY_TEST_PSQL", program("psql"))
        .status();
    match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(status) => {
            eprintln!("{}: {status}", command.display());
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{}: {error}", command.display());
            ExitCode::FAILURE
        }
    }
}
