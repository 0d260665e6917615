//! Numbers, times and texts in the form for people.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::ValueEnum;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

/// The form of moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Time {
    Local,
    Utc,
    Ago,
}

pub(crate) fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// A moment, given in milliseconds since 1970.
pub(crate) fn moment(form: Time, millis: u64) -> String {
    let zone = match form {
        Time::Utc => TimeZone::UTC,
        Time::Local => TimeZone::system(),
        Time::Ago => {
            let now = now();
            return match now.checked_sub(millis) {
                Some(ago) => format!("{} ago", age(ago)),
                None => format!("in {}", age(millis - now)),
            };
        }
    };
    let format = if form == Time::Utc { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%d %H:%M:%S" };
    let stamp = i64::try_from(millis).ok().and_then(|at| Timestamp::from_millisecond(at).ok());
    let shown = stamp.map(|stamp| stamp.to_zoned(zone).strftime(format).to_string());
    shown.unwrap_or_else(|| format!("{millis} ms"))
}

/// A duration in milliseconds, in its two largest units.
pub(crate) fn age(millis: u64) -> String {
    let seconds = millis / 1000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match millis {
        0..1000 => format!("{millis} ms"),
        1000..60_000 => format!("{}.{} s", seconds, millis % 1000 / 100),
        60_000..3_600_000 => format!("{minutes} min {} s", seconds % 60),
        3_600_000..86_400_000 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

pub(crate) fn span(duration: Duration) -> String {
    age(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// A number with a comma for each thousand.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

pub(crate) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

/// At most `columns` characters. A cut text ends in `…`.
pub(crate) fn cut(text: &str, columns: usize) -> String {
    match text.char_indices().nth(columns.saturating_sub(1)) {
        Some((at, _)) if text.chars().count() > columns => format!("{}…", &text[..at]),
        _ => text.to_owned(),
    }
}

/// A text or a number of a document; `-` for null.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_at_a_glance() {
        assert_eq!(count(0), "0");
        assert_eq!((count(999), count(1000)), ("999".to_owned(), "1,000".to_owned()));
        assert_eq!(count(8_631_204), "8,631,204");
        assert_eq!((age(812), age(1_812)), ("812 ms".to_owned(), "1.8 s".to_owned()));
        assert_eq!(age(7_860_000), "2 h 11 min");
        assert_eq!(age(3 * 86_400_000 + 4 * 3_600_000), "3 d 4 h");
        assert_eq!((size(7), size(11_700_000_000)), ("7 B".to_owned(), "10.9 GiB".to_owned()));
        assert_eq!(moment(Time::Utc, 0), "1970-01-01T00:00:00Z");
    }

    #[test]
    fn a_line_is_cut_at_the_edge() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("äbcdef", 5), "äbcd…");
        assert_eq!(cut("abc", usize::MAX), "abc");
        assert_eq!(cut("", 0), "");
    }
}
