//! Durations and sizes as people write them.

use std::time::Duration;

/// The longest duration that is accepted: a hundred years, which can still be added to a clock.
const LONGEST: Duration = Duration::from_secs(36_500 * 24 * 60 * 60);

/// Reads `30s`, `1h 30m`, `0`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    duration_within(text, Duration::ZERO, LONGEST)
}

/// Reads a duration above zero, for settings in which zero would leave no time.
pub(crate) fn some_time(text: &str) -> Result<Duration, String> {
    duration_within(text, Duration::from_millis(1), LONGEST)
}

/// Reads a duration between two bounds.
pub(crate) fn duration_within(
    text: &str,
    least: Duration,
    most: Duration,
) -> Result<Duration, String> {
    let read = match text {
        "0" => Duration::ZERO,
        _ => humantime::parse_duration(text)
            .map_err(|error| format!("{text:?} is not a duration, write 30s or 10m: {error}"))?,
    };
    if read < least {
        return Err(format!("{text:?} is too short, at least {}", show_duration(least)));
    }
    if read > most {
        return Err(format!("{text:?} is too long, at most {}", show_duration(most)));
    }
    Ok(read)
}

/// Writes a duration in one unit, so that [`duration`] reads it.
pub(crate) fn show_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let units = [
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
        ("us", 1000),
    ];
    if nanos == 0 {
        return "0".to_owned();
    }
    let whole = units.iter().find(|(_, unit)| nanos.is_multiple_of(*unit));
    whole.map_or_else(|| format!("{nanos}ns"), |(name, unit)| format!("{}{name}", nanos / unit))
}

const UNITS: [(&str, u64); 4] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1)];

/// Reads `512KiB`, `2MiB`, `20GiB`, or a number of bytes.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let unit = UNITS.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)));
    let (digits, factor) = unit.unwrap_or((text, &1));
    let number = digits.trim().parse::<u64>().ok().and_then(|number| number.checked_mul(*factor));
    number.ok_or_else(|| format!("{text:?} is not a size, write 512KiB, 2MiB or 20GiB"))
}

/// Writes a size so that [`bytes()`] reads it.
pub(crate) fn show_bytes(bytes: u64) -> String {
    let whole =
        UNITS[..3].iter().rev().find(|(_, factor)| bytes > 0 && bytes.is_multiple_of(*factor));
    whole.map_or_else(|| format!("{bytes}B"), |(unit, factor)| format!("{}{unit}", bytes / factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written() {
        for (text, expected) in
            [("2MiB", 2 << 20), ("1 KiB", 1 << 10), ("20GiB", 20 << 30), ("7", 7), ("7B", 7)]
        {
            assert_eq!(bytes(text), Ok(expected));
            assert_eq!(bytes(&show_bytes(expected)), Ok(expected));
        }
        for wrong in ["", "MiB", "-1", "1.5MiB", "2MB", "99999999999999999999", "99999999999GiB"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations_are_read() {
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert_eq!(duration("1h 30m"), Ok(Duration::from_secs(5400)));
        for (text, millis) in [("24h", 86_400_000), ("90s", 90_000), ("1500ms", 1500), ("0", 0)] {
            assert_eq!(show_duration(Duration::from_millis(millis)), text);
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)));
        }
        assert!(duration("30").is_err() && duration("soon").is_err());
        assert!(duration("36500d").is_ok() && some_time("1ms").is_ok());
        assert!(duration("36501d").unwrap_err().contains("at most 876000h"));
        assert!(some_time("0").unwrap_err().contains("at least 1ms"));
    }
}
