//! The plot: for each case and contender a line from the first host to the last, with a mark for each host's end.
//!
//! The axis is logarithmic and counts bounds, so that a contender that takes twice the soonest possible is as far from one
//! that reaches it in every case. Cases without a bound have no place on it.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{Entry, Outcome, ReportError, Run};
use crate::case::Case;

/// Draws all cases into one SVG, one panel below the other.
pub(super) fn draw(path: &Path, cases: &[Case], entries: &[Entry]) -> Result<(), ReportError> {
    let of = |case: &Case| entries.iter().filter(|entry| entry.case == case.name).collect::<Vec<_>>();
    let panels: Vec<(&Case, Vec<&Entry>)> =
        cases.iter().filter(|case| case.bound_s(1).is_some()).map(|case| (case, of(case))).collect();
    if panels.is_empty() {
        return Ok(());
    }
    let ratios = entries.iter().filter_map(Entry::typical).flat_map(|run| &run.finished);
    let most = ratios.filter_map(|finish| finish.over_bound).fold(2.0, f64::max) * 1.05;
    let height: i32 = panels.iter().map(|(_, entries)| panel_height(entries.len())).sum();
    let unable = |cause: DrawingError| ReportError::Draw { path: path.display().to_string(), cause: cause.to_string() };
    let area = SVGBackend::new(path, (WIDTH as u32, height as u32)).into_drawing_area();
    area.fill(&WHITE).map_err(unable)?;
    let mut top = 0;
    for (case, entries) in panels {
        Panel { area: &area, top, most }.draw(case, &entries).map_err(unable)?;
        top += panel_height(entries.len());
    }
    area.present().map_err(unable)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type DrawingError = DrawingAreaErrorKind<<SVGBackend<'static> as DrawingBackend>::ErrorType>;

struct Panel<'a, 'b> {
    area: &'a Area<'b>,
    top: i32,
    /// The largest ratio on the axis.
    most: f64,
}

impl Panel<'_, '_> {
    fn draw(&self, case: &Case, entries: &[&Entry]) -> Result<(), DrawingError> {
        let bottom = self.top + HEAD + ROW * entries.len() as i32;
        self.text(&case.title, (LABELS, self.top + 14), 17, HPos::Left)?;
        for ratio in AXIS.into_iter().filter(|ratio| *ratio <= self.most) {
            let x = self.x(ratio);
            let ink = if ratio == 1.0 { BLACK.mix(0.8) } else { BLACK.mix(0.15) };
            self.area.draw(&PathElement::new(vec![(x, self.top + HEAD - 6), (x, bottom)], ink))?;
            self.text(&format!("{ratio}"), (x, bottom + 10), 14, HPos::Center)?;
        }
        if let Some(goal) = case.goal {
            let x = self.x(goal);
            self.area.draw(&PathElement::new(vec![(x, self.top + HEAD - 6), (x, bottom)], OURS.mix(0.5)))?;
        }
        for (row, entry) in entries.iter().enumerate() {
            self.row(entry, self.top + HEAD + ROW * row as i32 + ROW / 2)?;
        }
        Ok(())
    }

    fn row(&self, entry: &Entry, y: i32) -> Result<(), DrawingError> {
        self.text(entry.contender, (LABELS - 10, y), 16, HPos::Right)?;
        match (&entry.outcome, entry.typical()) {
            (Outcome::Missing(_), _) => self.text("not installed", (LABELS, y), 15, HPos::Left),
            (Outcome::Failed(_), _) => self.text("failed", (LABELS, y), 15, HPos::Left),
            (Outcome::Runs(_), Some(run)) => {
                self.marks(run, y, if entry.contender == "drover" { OURS } else { RIVALS })
            }
            (Outcome::Runs(_), None) => Ok(()),
        }
    }

    /// A line from the first host to the last, a ring for each, and a dot for a host that is slower than most.
    fn marks(&self, run: &Run, y: i32, ink: RGBColor) -> Result<(), DrawingError> {
        let at: Vec<(i32, bool)> =
            run.finished.iter().filter_map(|finish| Some((self.x(finish.over_bound?), finish.slow))).collect();
        let usual = at.iter().filter(|(_, slow)| !slow).map(|(x, _)| *x);
        if let (Some(first), Some(last)) = (usual.clone().min(), usual.max()) {
            self.area.draw(&PathElement::new(vec![(first, y), (last, y)], ink.stroke_width(3)))?;
            let ratio = run.usual().last().and_then(|finish| finish.over_bound).unwrap_or_default();
            let right = at.iter().map(|(x, _)| *x).max().unwrap_or(last);
            self.text(&format!("{ratio:.2}"), (right + 10, y), 15, HPos::Left)?;
        }
        for (x, slow) in at {
            let style = if slow { ink.filled() } else { ink.stroke_width(1) };
            self.area.draw(&Circle::new((x, y), 4, style))?;
        }
        Ok(())
    }

    fn x(&self, ratio: f64) -> i32 {
        let share = ratio.max(AXIS[0]).ln() / self.most.ln();
        LABELS + (share * f64::from(WIDTH - LABELS - RIGHT)) as i32
    }

    fn text(&self, text: &str, at: (i32, i32), size: i32, side: HPos) -> Result<(), DrawingError> {
        let style = TextStyle::from(("sans-serif", size).into_font()).pos(Pos::new(side, VPos::Center));
        self.area.draw(&Text::new(text.to_owned(), at, style))
    }
}

fn panel_height(rows: usize) -> i32 {
    HEAD + ROW * rows as i32 + FOOT
}

const WIDTH: i32 = 900;
/// Where the axis begins; names of contenders are left of it.
const LABELS: i32 = 130;
const RIGHT: i32 = 60;
const HEAD: i32 = 34;
const ROW: i32 = 20;
const FOOT: i32 = 26;
const AXIS: [f64; 8] = [1.0, 1.25, 1.5, 2.0, 3.0, 5.0, 8.0, 12.0];
const OURS: RGBColor = RGBColor(200, 60, 20);
const RIVALS: RGBColor = RGBColor(70, 90, 120);
