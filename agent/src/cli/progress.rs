//! Progress of what takes time: a bar on a terminal, a line every few seconds elsewhere, events with `--json`.
//!
//! Bars and lines go to standard error, events to standard output. All three come from the same events, so that none
//! knows more than the others.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output::{Output, animated, colours, say};
use crate::control::api::{Event, Line, Phase, Transfer};
use crate::quantity::{Bytes, show_duration};

/// Shows how far one operation is.
#[derive(Debug)]
pub(crate) struct Progress {
    output: Output,
    bar: Option<ProgressBar>,
    label: String,
    rate: Rate,
    /// The last line that was printed, and when.
    last_line: Option<(Instant, String)>,
    /// Since when it waits for what, and whether that was said.
    wait: Option<(Instant, String, bool)>,
}

/// The rate of something that grows, over the last seconds.
#[derive(Debug, Default)]
pub(crate) struct Rate {
    samples: VecDeque<(Instant, u64)>,
}

/// How far something is, in the words of every display.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) step: String,
    pub(crate) done: u64,
    pub(crate) total: u64,
}

impl Progress {
    /// Progress of `label`: a file's or a master's name.
    pub(crate) fn new(output: Output, label: &str) -> Self {
        let bar = (!output.is_json() && animated()).then(|| bar(label));
        Progress { output, bar, label: label.to_owned(), rate: Rate::default(), last_line: None, wait: None }
    }

    /// Progress of one of several things at the same time, each in a line of its own.
    pub(crate) fn among(others: &MultiProgress, output: Output, label: &str) -> Self {
        let progress = Self::new(output, label);
        let bar = progress.bar.map(|bar| others.add(bar));
        Progress { bar, ..progress }
    }

    /// Shows what an event tells. With `--json` every event is printed as it is.
    pub(crate) fn show(&mut self, event: &Event) {
        if self.output.is_json() {
            if let Ok(json) = serde_json::to_string(&Line::from(event.clone())) {
                // Closed standard output ends the command at its result, which is printed by the same way.
                let _ = self.output.line(&json);
            }
            return;
        }
        match event {
            Event::Progress { step, done_bytes, total_bytes } => {
                self.advance(&Reading { step: step.clone(), done: *done_bytes, total: *total_bytes });
            }
            Event::Transfer(transfer) => {
                self.advance(&reading(transfer));
                self.tell_wait(transfer);
            }
            _ => {}
        }
    }

    /// Says how it ended; the bar stays.
    pub(crate) fn end_with(&self, text: &str) {
        match &self.bar {
            Some(bar) => {
                bar.set_position(bar.length().unwrap_or(0));
                bar.finish_with_message(text.to_owned());
            }
            None => say(&format!("{}: {text}", self.label)),
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn advance(&mut self, reading: &Reading) {
        let now = Instant::now();
        self.rate.push(now, reading.done);
        let rate = self.rate.per_second();
        if let Some(bar) = &self.bar {
            bar.set_length(reading.total);
            bar.set_position(reading.done);
            bar.set_message(format!("{}  {}", reading.step, speed(reading, rate)));
            return;
        }
        let text = line(reading, rate);
        let due = self.last_line.as_ref().is_none_or(|(last, before)| {
            now - *last >= if *before == text { SAME_LINE_INTERVAL } else { LINE_INTERVAL }
        });
        if due {
            say(&format!("{}: {text}", self.label));
            self.last_line = Some((now, text));
        }
    }

    /// Says why it stands still, once, and not before it has for a while: every fetch begins by waiting for a moment.
    fn tell_wait(&mut self, transfer: &Transfer) {
        let now = Instant::now();
        let Some(reason) = wait_reason(transfer) else {
            self.wait = None;
            return;
        };
        let (since, said) = match &self.wait {
            Some((since, before, said)) => (*since, *said && *before == reason),
            None => (now, false),
        };
        let due = !said && now - since >= WAIT_PATIENCE;
        if due {
            let text = format!("{}: {reason}", self.label);
            match &self.bar {
                Some(bar) => bar.suspend(|| say(&text)),
                None => say(&text),
            }
        }
        self.wait = Some((since, reason, said || due));
    }
}

impl Rate {
    /// It has grown to `value`.
    pub(crate) fn push(&mut self, now: Instant, value: u64) {
        if self.samples.back().is_some_and(|&(_, last)| value < last) {
            self.samples.clear();
        }
        self.samples.push_back((now, value));
        while self.samples.len() > 2 && self.samples.front().is_some_and(|&(at, _)| now - at > RATE_WINDOW) {
            self.samples.pop_front();
        }
    }

    /// Growth per second; 0 while nothing is known.
    pub(crate) fn per_second(&self) -> u64 {
        let (Some(&(from, first)), Some(&(to, last))) = (self.samples.front(), self.samples.back()) else { return 0 };
        let seconds = (to - from).as_secs_f64();
        if seconds < 0.05 { 0 } else { ((last - first) as f64 / seconds) as u64 }
    }
}

/// How far a transfer is.
pub(crate) fn reading(transfer: &Transfer) -> Reading {
    let step = match transfer.phase {
        Phase::Manifest => "looking for it",
        Phase::Fetching if transfer.taken_bytes == 0 && transfer.held_bytes < transfer.data_bytes => {
            "looking for peers"
        }
        phase => phase.word(),
    };
    Reading { step: step.to_owned(), done: transfer.held_bytes, total: transfer.data_bytes }
}

/// Why a transfer stands still, precisely; `None` if it does not.
pub(crate) fn wait_reason(transfer: &Transfer) -> Option<String> {
    match transfer.phase {
        Phase::Paused => {
            Some(format!("paused: {}", transfer.reason.as_deref().unwrap_or("the disk does not take data")))
        }
        Phase::Manifest => Some("waits for a host that has its manifest".to_owned()),
        Phase::Fetching if !transfer.unavailable.is_empty() => Some(unavailable(&transfer.unavailable)),
        _ => None,
    }
}

/// Which parts nobody has: a few of the byte ranges, and how many there are.
fn unavailable(ranges: &[(u64, u64)]) -> String {
    let sum: u64 = ranges.iter().map(|(begin, end)| end.saturating_sub(*begin)).sum();
    let named = ranges.iter().take(RANGES_NAMED).map(|(begin, end)| format!("{begin}-{}", end.saturating_sub(1)));
    let named = named.collect::<Vec<_>>().join(", ");
    let more = match ranges.len().saturating_sub(RANGES_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more ranges (all of them: `drover status --json`)"),
    };
    format!("{} of the master, bytes {named}{more}, are with no reachable host; waiting for one", Bytes(sum))
}

/// `12.0 MiB of 64.0 MiB, 19 %, 30.1 MiB/s, 2 s left`.
pub(crate) fn line(reading: &Reading, rate: u64) -> String {
    if reading.total == 0 {
        return reading.step.clone();
    }
    let percent = reading.done as f64 * 100.0 / reading.total as f64;
    let (done, total) = (Bytes(reading.done), Bytes(reading.total));
    format!("{}, {done} of {total}, {percent:.0} %, {}", reading.step, speed(reading, rate))
}

/// Rate and time left.
fn speed(reading: &Reading, rate: u64) -> String {
    let left = reading.total.saturating_sub(reading.done);
    match left.checked_div(rate) {
        Some(0) | None => format!("{}/s", Bytes(rate)),
        Some(seconds) => format!("{}/s, {} left", Bytes(rate), show_duration(Duration::from_secs(seconds))),
    }
}

/// A bar that is drawn at most ten times a second.
pub(crate) fn bar(label: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(10));
    bar.set_style(bar_style());
    bar.set_prefix(label.to_owned());
    bar
}

/// How bars look.
pub(crate) fn bar_style() -> ProgressStyle {
    let bar = if colours() { "{bar:20.cyan/blue}" } else { "{bar:20}" };
    let template = format!("{{prefix:10}} {bar} {{percent:>3}} % {{binary_bytes:>10}}  {{wide_msg}}");
    ProgressStyle::with_template(&template).expect("the template is a constant").progress_chars("━╸─")
}

/// Neighbours are found, and an endgame turns over, in less.
const WAIT_PATIENCE: Duration = Duration::from_secs(2);
const LINE_INTERVAL: Duration = Duration::from_secs(3);
/// What stands still is said again so often: a log shows that somebody still waits.
const SAME_LINE_INTERVAL: Duration = Duration::from_secs(30);
const RATE_WINDOW: Duration = Duration::from_secs(5);
const RANGES_NAMED: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let start = Instant::now();
        let mut rate = Rate::default();
        for second in 0..20u64 {
            // Ten seconds at 1,000 a second, then ten at 100.
            let value = second.min(10) * 1000 + second.saturating_sub(10) * 100;
            rate.push(start + Duration::from_secs(second), value);
        }
        assert_eq!(rate.per_second(), 100);
        rate.push(start + Duration::from_secs(20), 5);
        assert_eq!(rate.per_second(), 0, "what shrinks begins anew");
    }

    #[test]
    fn a_line_says_how_far_how_fast_and_how_long() {
        let reading = Reading { step: "fetching".to_owned(), done: 16 << 20, total: 64 << 20 };
        assert_eq!(line(&reading, 16 << 20), "fetching, 16.0 MiB of 64.0 MiB, 25 %, 16.0 MiB/s, 3 s left");
        assert_eq!(line(&reading, 0), "fetching, 16.0 MiB of 64.0 MiB, 25 %, 0 B/s");
    }

    #[test]
    fn what_nobody_has_is_named_as_byte_ranges() {
        let text = unavailable(&[(0, 65_536), (131_072, 262_144)]);
        let wanted =
            "192.0 KiB of the master, bytes 0-65535, 131072-262143, are with no reachable host; waiting for one";
        assert_eq!(text, wanted);
        let many: Vec<(u64, u64)> = (0..9).map(|at| (at * 10, at * 10 + 1)).collect();
        assert!(unavailable(&many).contains("and 5 more ranges"));
    }
}
