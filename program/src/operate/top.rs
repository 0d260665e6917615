//! `oncekey top`: the statistics, redrawn each second.

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Read};
use std::time::Duration;

use clap::Args;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use serde_json::Value;

use super::output::Output;
use super::whereabouts::Where;
use super::{show, stats};
use crate::base::exit::Failure;

/// The time between two drawings of the screen.
const PAUSE: Duration = Duration::from_secs(1);
/// The number of seconds that a line of bars shows.
const SHOWN: usize = 30;
/// The counters whose rates are drawn.
const RATES: [&str; 4] = ["claimed", "replayed", "locked", "groups"];

/// Redraws until q is pressed.
#[derive(Args)]
pub(crate) struct Top {
    #[command(flatten)]
    at: Where,
}

impl Top {
    pub(crate) fn run(&self, output: &Output) -> Result<(), Failure> {
        if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
            return Err(Failure::usage(
                "top draws on a terminal; oncekey stats --watch writes to files",
            ));
        }
        let place = self.at.open(output)?;
        place.server("top")?;
        let _raw = Raw::begin().map_err(|error| Failure::failed(error.to_string()))?;
        let mut last: Option<Value> = None;
        let mut rates: [VecDeque<u64>; RATES.len()] = Default::default();
        loop {
            let report = stats::report(&place)?;
            if let Some(last) = &last {
                for (rates, name) in rates.iter_mut().zip(RATES) {
                    let of = |report: &Value| report["engine"][name].as_u64().unwrap_or(0);
                    rates.push_back(of(&report).saturating_sub(of(last)));
                    if rates.len() > SHOWN {
                        rates.pop_front();
                    }
                }
            }
            let mut screen = format!("\x1b[H\x1b[J{}\n", stats::text(output, &report));
            for (rates, name) in rates.iter().zip(RATES) {
                let now = rates.back().copied().unwrap_or(0);
                screen.push_str(&format!(
                    "{name:<12} {:>9}/s  {}\n",
                    show::count(now),
                    bars(rates)
                ));
            }
            screen.push_str("\npress q to quit\n");
            output.bytes(screen.as_bytes())?;
            last = Some(report);
            if quits().map_err(|error| Failure::failed(error.to_string()))? {
                return Ok(());
            }
        }
    }
}

/// A bar for each figure; the largest figure has the highest bar.
fn bars(figures: &VecDeque<u64>) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = figures.iter().copied().max().unwrap_or(0).max(1);
    figures.iter().map(|figure| BARS[(figure * 7).div_ceil(most).min(7) as usize]).collect()
}

/// Waits until the pause is over. Returns whether `q` was pressed.
fn quits() -> io::Result<bool> {
    let stdin = io::stdin();
    let timeout = Timespec { tv_sec: PAUSE.as_secs() as i64, tv_nsec: 0 };
    let mut fds = [PollFd::new(&stdin, PollFlags::IN)];
    if poll(&mut fds, Some(&timeout))? == 0 {
        return Ok(false);
    }
    let mut byte = [0];
    Ok(stdin.lock().read(&mut byte)? == 0 || byte[0] == b'q')
}

/// Puts the terminal into a mode that returns each key at once. Dropping this restores the old mode.
struct Raw(Termios);

impl Raw {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.local_modes &= !(LocalModes::ICANON | LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // An error here means that the terminal is gone.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_high_as_their_figures() {
        assert_eq!(bars(&VecDeque::from([0, 1, 7])), "▁▂█");
        assert_eq!(bars(&VecDeque::new()), "");
    }
}
