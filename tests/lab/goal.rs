//! Figures beside their goals: the table and the JSON of those commands that measure on this machine alone, without wires.
//!
//! A figure is the median of its runs, and of daemons looked at together it is the worst one; the least and the greatest
//! stand beside it. Nothing fails by a figure.

use std::error::Error;
use std::path::Path;

use serde_json::{Value, json};

/// Reads how often something is measured, for the command line.
pub(crate) fn at_least_once(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("nothing is measured by 0 runs; the least is 1".to_owned()),
        Ok(count) => Ok(count),
        Err(_) => Err("this is no number of runs; the least is 1".to_owned()),
    }
}

/// What a figure should be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    /// At least this.
    AtLeast(f64),
    /// At most this.
    AtMost(f64),
    /// It is only told.
    None,
}

/// One figure, measured some times.
#[derive(Debug, Clone)]
pub(crate) struct Figure {
    what: String,
    unit: &'static str,
    values: Vec<f64>,
    goal: Goal,
    /// Whether every value has to reach the goal, not the median alone.
    each: bool,
}

impl Figure {
    /// The values are of one run each, at least one.
    pub(crate) fn new(what: impl Into<String>, unit: &'static str, mut values: Vec<f64>, goal: Goal) -> Self {
        assert!(!values.is_empty(), "a figure was measured");
        values.sort_by(f64::total_cmp);
        Figure { what: what.into(), unit, values, goal, each: false }
    }

    /// The values are of one daemon each, and every one has to reach the goal.
    pub(crate) fn of_each(what: impl Into<String>, unit: &'static str, values: Vec<f64>, goal: Goal) -> Self {
        Figure { each: true, ..Figure::new(what, unit, values, goal) }
    }

    /// Of an even number of values the lower of the two in the middle.
    pub(crate) fn median(&self) -> f64 {
        self.values[(self.values.len() - 1) / 2]
    }

    fn reached(&self) -> Option<bool> {
        let (least, greatest) = (self.values[0], self.values[self.values.len() - 1]);
        match self.goal {
            Goal::AtLeast(goal) => Some(if self.each { least } else { self.median() } >= goal),
            Goal::AtMost(goal) => Some(if self.each { greatest } else { self.median() } <= goal),
            Goal::None => None,
        }
    }

    fn goal(&self) -> String {
        match self.goal {
            Goal::AtLeast(least) => format!(">= {least}"),
            Goal::AtMost(most) => format!("<= {most}"),
            Goal::None => String::new(),
        }
    }

    fn json(&self) -> Value {
        let (median, reached) = (self.median(), self.reached());
        json!({ "what": self.what, "unit": self.unit, "median": median, "values": self.values,
                "goal": self.goal(), "reached": reached })
    }
}

/// The figures as a table.
pub(crate) fn table(figures: &[Figure]) -> String {
    let width = figures.iter().map(|figure| figure.what.chars().count()).max().unwrap_or(0);
    let mut lines = vec![format!(
        "{:<width$}  {:>9}  {:>9}  {:>9}  {:<6}  {:>4}  {:<9}  REACHED",
        "WHAT", "MEDIAN", "LEAST", "GREATEST", "UNIT", "RUNS", "GOAL"
    )];
    for figure in figures {
        let (least, greatest) = (figure.values[0], figure.values[figure.values.len() - 1]);
        let reached = figure.reached().map_or("", |reached| if reached { "yes" } else { "NO" });
        lines.push(format!(
            "{:<width$}  {:>9.3}  {:>9.3}  {:>9.3}  {:<6}  {:>4}  {:<9}  {reached}",
            figure.what,
            figure.median(),
            least,
            greatest,
            figure.unit,
            figure.values.len(),
            figure.goal(),
        ));
    }
    lines.join("\n")
}

/// Writes `NAME.json` and `NAME.txt` into a folder, if one is given.
pub(crate) fn write(
    folder: Option<&Path>,
    name: &str,
    figures: &[Figure],
    details: Value,
) -> Result<(), Box<dyn Error>> {
    let Some(folder) = folder else { return Ok(()) };
    std::fs::create_dir_all(folder)?;
    let figures_json: Vec<Value> = figures.iter().map(Figure::json).collect();
    let all = json!({ "figures": figures_json, "details": details });
    std::fs::write(folder.join(format!("{name}.json")), serde_json::to_vec_pretty(&all)?)?;
    std::fs::write(folder.join(format!("{name}.txt")), table(figures) + "\n")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_counts_against_the_goal_or_each_value_does() {
        let figure = |goal| Figure::new("speed", "", vec![9.0, 1.0, 2.0], goal);
        assert_eq!(figure(Goal::AtLeast(2.0)).reached(), Some(true));
        assert_eq!(figure(Goal::AtMost(1.9)).reached(), Some(false));
        assert_eq!(figure(Goal::None).reached(), None);
        let of_each = |goal| Figure::of_each("speed", "", vec![9.0, 1.0, 2.0], goal).reached();
        assert_eq!([of_each(Goal::AtMost(9.0)), of_each(Goal::AtMost(8.9))], [Some(true), Some(false)]);
        assert_eq!([of_each(Goal::AtLeast(1.0)), of_each(Goal::AtLeast(1.1))], [Some(true), Some(false)]);
        assert!(table(&[figure(Goal::AtMost(1.9))]).contains("NO"));
    }
}
