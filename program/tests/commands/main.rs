//! The commands of operators, as a shell runs them: rows B1 to B12 of docs/commands.md.
#![allow(missing_docs, clippy::unwrap_used)]

mod asking;
mod damage;
mod keeping;
mod page;
mod printing;
mod resolving;
mod support;
