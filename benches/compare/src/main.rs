//! The program. Its whole is a library, so that another binary can be the same with another allocator.

use std::process::ExitCode;

fn main() -> ExitCode {
    oncekey_compare::main()
}
