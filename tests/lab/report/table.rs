//! The table, in Markdown, as it stands in README.

use std::fmt::Write;

use super::{Entry, Finish, Outcome, Run};
use crate::case::Case;

/// A table for each case.
pub(crate) fn table(cases: &[Case], entries: &[Entry]) -> String {
    let mut text = String::new();
    for case in cases {
        let bound = case.receivers().filter_map(|host| case.bound_s(host)).reduce(f64::min);
        let bound = bound.map_or(String::new(), |bound| format!(", bound {bound:.2} s"));
        let _ = writeln!(text, "**{}**{bound}\n", case.title);
        let _ = writeln!(text, "{HEAD}");
        for entry in entries.iter().filter(|entry| entry.case == case.name) {
            let _ = writeln!(text, "| {} | {} |", entry.contender, cells(entry));
        }
        if let Some(goal) = case.goal {
            let slow = case.goal_slow.map(|goal| format!("; slow ≤ {goal:.2}")).unwrap_or_default();
            let uplink = case.goal_uplink.map(|goal| format!("; uplink ≤ {goal:.2}")).unwrap_or_default();
            let _ = writeln!(text, "| *goal* | ≤ {goal:.2}{slow} | | | ≤ 1.10{uplink} | ≤ 0.5 % | | | |");
        }
        text.push('\n');
    }
    text
}

fn cells(entry: &Entry) -> String {
    match (&entry.outcome, entry.typical()) {
        (Outcome::Missing(what), _) => format!("not installed: {what} | | | | | | |"),
        (Outcome::Failed(why), _) => {
            format!("failed: {} | | | | | | |", why.lines().last().unwrap_or_default().replace('|', "/"))
        }
        (Outcome::Runs(_), Some(run)) => measured(run),
        (Outcome::Runs(_), None) => " | | | | | | |".to_owned(),
    }
}

fn measured(run: &Run) -> String {
    let usual = run.usual();
    let at = |index: usize| usual.get(index).map(|finish| time(finish)).unwrap_or_default();
    let last = usual.len().saturating_sub(1);
    let slow = run.last_slow().map(|finish| format!("; slow {}", time(finish))).unwrap_or_default();
    let uplink = run.uplink_ratio.map(|ratio| format!("; uplink {ratio:.2}")).unwrap_or_default();
    let twice = run.wasted_share.map(|share| format!("{:.2} %", share * 100.0)).unwrap_or_default();
    let mib = run.peak_bytes.values().max().map_or(0, |bytes| bytes >> 20);
    let limits = run.limits.iter().filter(|share| share.share >= 0.03);
    let limits: Vec<String> = limits.map(|share| format!("{} {:.0} %", share.limit, share.share * 100.0)).collect();
    let (last, median, first) = (at(last), at(last / 2), at(0));
    let (source, cpu, busy) = (run.source_ratio, run.cpu_s_per_gib, run.cpu_share * 100.0);
    format!(
        "{last}{slow} | {median} | {first} | {source:.2}{uplink} | {twice} | {cpu:.1} ({busy:.0} %) | {mib} | {}",
        limits.join(", ")
    )
}

/// Over the bound, with the seconds; only these if nothing bounds it.
fn time(finish: &Finish) -> String {
    finish
        .over_bound
        .map_or_else(|| format!("{:.2} s", finish.after_s), |ratio| format!("{ratio:.2} ({:.2} s)", finish.after_s))
}

const HEAD: &str = "\
| | last host / bound | median | first | source sent / image | came twice | CPU s per GiB (of all) | peak MiB | the last host was limited by |
|---|---|---|---|---|---|---|---|---|";
