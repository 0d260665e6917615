//! The configuration of the proxy. No text makes its parser panic. Every refusal names a line and a column of the
//! text. An accepted configuration is printed so that it reads as the same.
#![no_main]
#![allow(dead_code, unused_imports)]

use libfuzzer_sys::fuzz_target;

#[path = "../../program/src/base/mod.rs"]
mod base;
#[path = "../../program/src/config/mod.rs"]
mod config;

const NAME: &str = "oncekey.toml";

/// The configuration, as `--check` judges it.
fn read(text: &str) -> Result<config::Config, Vec<String>> {
    let mut read = config::Config::default();
    config::read(&mut read, NAME, text, |_| {})?;
    Ok(read)
}

fuzz_target!(|text: &str| {
    match read(text) {
        Err(lines) => {
            assert!(!lines.is_empty() && lines.len() <= 10, "{lines:?}");
            lines.iter().for_each(|line| assert!(is_placed(line, text), "{line:?}"));
        }
        Ok(accepted) => {
            // A mistake that no part of the text shows has no place. It must not panic, either.
            let _ = (accepted.check(), accepted.warnings());
            // A password is not printed.
            if accepted.store.directory().is_none() {
                return;
            }
            let printed = config::print(&accepted);
            let again = read(&printed).unwrap_or_else(|lines| panic!("{lines:?}\n{printed}"));
            assert_eq!(config::print(&again), printed);
            assert_eq!(again.check(), accepted.check());
            assert_eq!(again.fixed_fields_that_differ(&accepted), Vec::<&str>::new(), "{printed}");
        }
    }
});

/// Whether a line begins with the name, and a line and a column that the text has, and says something.
fn is_placed(line: &str, text: &str) -> bool {
    let place = line.strip_prefix(NAME).and_then(|rest| rest.strip_prefix(':'));
    let mut parts = place.unwrap_or_default().splitn(3, ':');
    let mut number = || parts.next().and_then(|number| number.parse::<usize>().ok());
    let (Some(row), Some(column)) = (number(), number()) else { return false };
    let Some(found) = row.checked_sub(1).and_then(|row| text.split('\n').nth(row)) else {
        return false;
    };
    let says = parts.next().is_some_and(|message| !message.trim().is_empty());
    says && (1..=found.chars().count() + 1).contains(&column)
}
