//! The ranges of what is configured in numbers.
//!
//! A value outside would refuse every request, or fail only when one comes.

use std::fmt::Display;
use std::time::Duration;

use super::model::Config;
use crate::base::units::{show_bytes, show_duration};

/// The longest response that an engine stores.
const MAX_RESPONSE: usize = 16 << 20;

const LEAST_TIME: Duration = Duration::from_millis(1);

impl Config {
    /// # Errors
    /// With the first field that is out of its range, its value and the bound.
    pub(super) fn check_ranges(&self) -> Result<(), String> {
        let (upstream, limits) = (&self.upstream, &self.limits);
        for (field, time) in [
            ("connect_timeout in [upstream]", upstream.connect_timeout),
            ("body_idle in [upstream]", upstream.body_idle),
            ("header_timeout in [limits]", limits.header_timeout),
            ("request_body_idle in [limits]", limits.request_body_idle),
        ] {
            least_time(field, time)?;
        }
        for (field, most) in [
            ("max_connections in [upstream]", upstream.max_connections),
            ("max_connections in [limits]", limits.max_connections),
        ] {
            in_range(most >= 1, field, most, "at least 1")?;
        }
        let buffered = show_bytes(limits.max_buffered as u64);
        in_range(limits.max_buffered >= 1, "max_buffered in [limits]", buffered, "at least 1B")?;
        for policy in self.policies() {
            least_time("ttl", policy.ttl)?;
            let response = show_bytes(policy.max_response as u64);
            let most = format!("at most {}", show_bytes(MAX_RESPONSE as u64));
            in_range(policy.max_response <= MAX_RESPONSE, "max_response", response, &most)?;
        }
        Ok(())
    }
}

fn least_time(field: &str, time: Duration) -> Result<(), String> {
    let least = format!("at least {}", show_duration(LEAST_TIME));
    in_range(time >= LEAST_TIME, field, show_duration(time), &least)
}

fn in_range(holds: bool, field: &str, value: impl Display, bound: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("{field} is {value}, {bound} is allowed")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_at_its_ends_is_taken_or_refused_by_its_name_with_the_bound() {
        let checked = |section: &str, line: &str| {
            let upstream = "[upstream]\nurls = [\"http://h:1\"]\n";
            let text = match section {
                "upstream" => format!("{upstream}{line}\n"),
                section => format!("{upstream}[{section}]\n{line}\n"),
            };
            let mut config = Config::default();
            match crate::config::read(&mut config, "t", &text, |_| {}) {
                Ok(()) => config.check(),
                Err(lines) => Err(lines.join("\n")),
            }
        };
        let fields = [
            ("upstream", "connect_timeout", [r#""0""#, r#""1ms""#, r#""1h""#]),
            ("upstream", "body_idle", [r#""0""#, r#""1ms""#, r#""1h""#]),
            ("upstream", "max_connections", ["0", "1", "4294967295"]),
            ("limits", "max_connections", ["0", "1", "4294967295"]),
            ("limits", "max_buffered", [r#""0""#, r#""1""#, r#""17179869183GiB""#]),
            ("limits", "header_timeout", [r#""0""#, r#""1ms""#, r#""1h""#]),
            ("limits", "request_body_idle", [r#""999us""#, r#""1ms""#, r#""1h""#]),
            ("policy", "ttl", [r#""0""#, r#""1ms""#, r#""36500days""#]),
            ("policy", "max_response", [r#""16777217""#, r#""0""#, r#""16MiB""#]),
        ];
        for (section, field, [wrong, least, most]) in fields {
            let message = checked(section, &format!("{field} = {wrong}")).unwrap_err();
            assert!(message.starts_with(field), "{message}");
            assert!(message.contains("at least") || message.contains("at most"), "{message}");
            for right in [least, most] {
                assert_eq!(checked(section, &format!("{field} = {right}")), Ok(()), "{field}");
            }
        }
        // The longest times that can be written.
        for (section, field) in [
            ("upstream", "connect_timeout"),
            ("upstream", "idle"),
            ("upstream", "body_idle"),
            ("limits", "header_timeout"),
            ("limits", "request_body_idle"),
            ("limits", "tunnel_idle"),
            ("policy", "ttl"),
            ("policy", "wait"),
            ("policy", "answer_within"),
            ("policy", "give_up_after"),
        ] {
            let line = format!("{field} = \"18446744073709551615s\"");
            let message = checked(section, &line).unwrap_err();
            assert!(message.contains("at most 36500 days"), "{message}");
        }
    }
}
