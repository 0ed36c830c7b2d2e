//! The table, in Markdown: a row for each technique, a column for each operation.

use std::fmt::Write;

use super::figures::{Figures, Spread};
use super::operation::{Operation, Part};
use super::technique::Technique;

/// A table for each part.
pub(super) fn table(parts: &[Part], techniques: &[Technique], figures: &Figures) -> String {
    parts.iter().map(|&part| of_part(part, techniques, figures)).collect::<Vec<_>>().join("\n")
}

fn of_part(part: Part, techniques: &[Technique], figures: &Figures) -> String {
    let operations = part.operations();
    let mut text = format!("**{part}**: {}\n\n|", part.note());
    operations.iter().for_each(|operation| text.push_str(&format!(" | {operation}")));
    text.push_str(" |\n|---|");
    text.push_str(&"---|".repeat(operations.len()));
    text.push('\n');
    for technique in Technique::of(part).filter(|technique| techniques.contains(technique)) {
        let _ = write!(text, "| {technique}");
        for &operation in operations {
            let _ = write!(text, " | {}", cell(part, operation, technique, figures));
        }
        text.push_str(" |\n");
    }
    text
}

/// Of a yardstick what it did in a second, of others the ratio, or why there is none.
fn cell(part: Part, operation: Operation, technique: Technique, figures: &Figures) -> String {
    if let Some(obstacle) = technique.obstacle(operation) {
        return obstacle.to_owned();
    }
    if technique.yardstick() == technique {
        let speed = figures.speed(part, operation, technique);
        let shown = |speed: Spread| {
            format!("{:.0} {} ({:.0} to {:.0})", speed.median, operation.unit(), speed.least, speed.greatest)
        };
        return speed.map_or_else(|| UNTIMED.to_owned(), shown);
    }
    let ratio = figures.ratio(part, operation, technique);
    let shown = |ratio: Spread| format!("{:.2} ({:.2} to {:.2})", ratio.median, ratio.least, ratio.greatest);
    ratio.map_or_else(|| UNTIMED.to_owned(), shown)
}

/// Bonnie++ gives no figure for what takes less than half a second.
const UNTIMED: &str = "too short to be timed";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::study::figures::Sample;

    #[test]
    fn every_cell_has_a_figure_or_a_reason() {
        let sample = |operation, technique, per_s| Sample { part: Part::Blocks, operation, technique, round: 0, per_s };
        let figures = Figures(vec![
            sample(Operation::SequentialRead, Technique::Plain, 800.0),
            sample(Operation::SequentialRead, Technique::Qcow2Fast, 600.0),
        ]);
        let text = table(&[Part::Blocks], &[Technique::Plain, Technique::Qcow2Fast, Technique::Vhd], &figures);
        assert!(text.contains("| plain file | 800 MiB/s (800 to 800) |"), "{text}");
        assert!(text.contains("| qcow2 fast | 0.75 (0.75 to 0.75) |"), "{text}");
        assert!(text.contains("no program here writes it"), "{text}");
        assert!(!text.contains("| reflink"), "{text}");
        let columns = |line: &str| line.matches('|').count();
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
        assert!(rows.iter().all(|row| columns(row) == 8), "{text}");
    }
}
