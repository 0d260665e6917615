//! The same program on mimalloc: what the sides `…-mimalloc` of the mode `http` are served by.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    oncekey_compare::main()
}
