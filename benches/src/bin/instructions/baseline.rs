//! The committed counts, and what a comparison with them says.

use std::fmt::{self, Write as _};
use std::path::Path;

use oncekey_benches::Result;

/// Instructions that a count may be off whatever the tolerance: it is a mean over operations.
const SLACK: u64 = 200;

const HEADER: &str = "\
# Instructions for one operation of each hot path under callgrind, x86-64, release build.
# Checked by benches/instructions.sh, written by benches/instructions.sh --bless.
";

/// Instructions of one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) name: String,
    pub(crate) instructions: u64,
}

/// What is committed, in the order of the file.
#[derive(Debug)]
pub(crate) struct Baseline(Vec<Count>);

impl Baseline {
    pub(crate) fn of(counts: Vec<Count>) -> Self {
        Self(counts)
    }

    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("{}: {error}; --bless writes it", path.display()))?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
        let counts = lines.map(|line| {
            let (count, name) = line.trim().split_once("  ").ok_or("a line without two spaces")?;
            Ok(Count { name: name.trim().to_owned(), instructions: count.parse()? })
        });
        Ok(Self(counts.collect::<Result<_>>()?))
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        Ok(std::fs::write(path, self.to_text())?)
    }

    fn to_text(&self) -> String {
        self.0.iter().fold(HEADER.to_owned(), |mut text, count| {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{:>8}  {}", count.instructions, count.name);
            text
        })
    }

    /// Compares; `all` says that a path of the baseline that was not counted is a finding, too.
    pub(crate) fn compare(&self, counts: &[Count], tolerance: f64, all: bool) -> Comparison {
        let find = |counts: &[Count], name: &str| {
            counts.iter().find(|count| count.name == name).map(|count| count.instructions)
        };
        let mut rows: Vec<_> = (counts.iter())
            .map(|count| Row {
                name: count.name.clone(),
                verdict: Verdict::of(find(&self.0, &count.name), count.instructions, tolerance),
                baseline: find(&self.0, &count.name),
                counted: Some(count.instructions),
            })
            .collect();
        let missing = self.0.iter().filter(|count| all && find(counts, &count.name).is_none());
        rows.extend(missing.map(|count| Row {
            name: count.name.clone(),
            baseline: Some(count.instructions),
            counted: None,
            verdict: Verdict::Gone,
        }));
        Comparison { rows, tolerance }
    }
}

/// The outcome of a check.
#[derive(Debug)]
pub(crate) struct Comparison {
    rows: Vec<Row>,
    tolerance: f64,
}

#[derive(Debug)]
struct Row {
    name: String,
    baseline: Option<u64>,
    counted: Option<u64>,
    verdict: Verdict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Within,
    Dearer,
    Cheaper,
    New,
    Gone,
}

impl Verdict {
    fn of(baseline: Option<u64>, counted: u64, tolerance: f64) -> Self {
        let Some(baseline) = baseline else {
            return Self::New;
        };
        let allowed = SLACK.max((baseline as f64 * tolerance / 100.0) as u64);
        if counted > baseline + allowed {
            Self::Dearer
        } else if counted + allowed < baseline {
            Self::Cheaper
        } else {
            Self::Within
        }
    }
}

impl Comparison {
    /// Whether nothing got dearer and the paths are those of the baseline.
    pub(crate) fn passes(&self) -> bool {
        self.rows.iter().all(|row| matches!(row.verdict, Verdict::Within | Verdict::Cheaper))
    }

    pub(crate) fn dearer(&self) -> impl Iterator<Item = &str> {
        let dearer = self.rows.iter().filter(|row| row.verdict == Verdict::Dearer);
        dearer.map(|row| row.name.as_str())
    }

    fn has(&self, verdict: Verdict) -> bool {
        self.rows.iter().any(|row| row.verdict == verdict)
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>8} {:>8} {:>7}  path", "baseline", "counted", "change")?;
        let number = |count: Option<u64>| count.map_or("-".to_owned(), |count| count.to_string());
        for Row { name, baseline, counted, verdict } in &self.rows {
            let change = baseline.zip(*counted).map_or(String::new(), |(baseline, counted)| {
                format!("{:+.1} %", (counted as f64 / baseline.max(1) as f64 - 1.0) * 100.0)
            });
            let remark = match verdict {
                Verdict::Within => "",
                Verdict::Dearer => "  <- DEARER",
                Verdict::Cheaper => "  <- CHEAPER",
                Verdict::New => "  <- NOT IN THE BASELINE",
                Verdict::Gone => "  <- NOT COUNTED",
            };
            let (baseline, counted) = (number(*baseline), number(*counted));
            writeln!(f, "{baseline:>8} {counted:>8} {change:>7}  {name}{remark}")?;
        }
        let tolerance = self.tolerance;
        if self.has(Verdict::Dearer) {
            writeln!(
                f,
                "more than {tolerance} % above the baseline: find out why before blessing it"
            )?;
        }
        if self.has(Verdict::Cheaper) {
            writeln!(
                f,
                "more than {tolerance} % below: lower the baseline with --bless, to keep the gain"
            )?;
        }
        if self.has(Verdict::New) || self.has(Verdict::Gone) {
            writeln!(f, "the paths are not those of the baseline: --bless writes it anew")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(counts: &[(&str, u64)]) -> Vec<Count> {
        counts
            .iter()
            .map(|(name, instructions)| Count { name: (*name).into(), instructions: *instructions })
            .collect()
    }

    #[test]
    fn what_is_written_is_read_again() {
        let written = counts(&[("begin, caller's thread", 12_345), ("fold", 7)]);
        let read = Baseline::parse(&Baseline::of(written.clone()).to_text()).unwrap();
        assert_eq!(read.0, written);
    }

    #[test]
    fn a_change_beyond_the_tolerance_is_noticed_either_way_and_fails_when_dearer() {
        for (counted, verdict) in [
            (10_000, Verdict::Within),
            (10_500, Verdict::Within),
            (10_501, Verdict::Dearer),
            (9_500, Verdict::Within),
            (9_499, Verdict::Cheaper),
        ] {
            let comparison = Baseline::of(counts(&[("a", 10_000)])).compare(
                &counts(&[("a", counted)]),
                5.0,
                true,
            );
            assert_eq!(comparison.rows[0].verdict, verdict, "{counted}");
            assert_eq!(comparison.passes(), verdict != Verdict::Dearer);
        }
    }

    #[test]
    fn paths_come_and_go_only_with_a_new_baseline() {
        let baseline = Baseline::of(counts(&[("a", 1_000), ("b", 1_000)]));
        assert!(!baseline.compare(&counts(&[("a", 1_000)]), 5.0, true).passes());
        assert!(baseline.compare(&counts(&[("a", 1_000)]), 5.0, false).passes());
        let more = counts(&[("a", 1_000), ("b", 1_000), ("c", 1)]);
        assert!(!baseline.compare(&more, 5.0, true).passes());
    }
}
