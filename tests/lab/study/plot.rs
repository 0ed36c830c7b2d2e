//! The plot, in the style of the study's figures: a group of bars for each operation, a bar for each technique, as high as
//! its ratio to the plain file, which is the line at 1. A thin line on a bar goes from the least to the greatest round.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::figures::Figures;
use super::operation::{Operation, Part};
use super::technique::Technique;

/// Draws all parts into one SVG, one panel below the other.
pub(super) fn draw(path: &Path, parts: &[Part], techniques: &[Technique], figures: &Figures) -> Result<(), String> {
    let unable = |cause: DrawingError| format!("draw {}: {cause}", path.display());
    let height = LEGEND + PANEL * parts.len() as i32;
    let area = SVGBackend::new(path, (WIDTH as u32, height as u32)).into_drawing_area();
    area.fill(&WHITE).map_err(unable)?;
    let shown = |part: Part| {
        let compared =
            move |technique: &Technique| technique.yardstick() != *technique && techniques.contains(technique);
        Technique::of(part).filter(compared).collect::<Vec<_>>()
    };
    for (at, &part) in parts.iter().enumerate() {
        let panel = Panel { area: &area, figures, top: LEGEND + PANEL * at as i32 };
        panel.draw(part, &shown(part)).map_err(unable)?;
    }
    let mut all: Vec<Technique> = parts.iter().flat_map(|&part| shown(part)).collect();
    all.sort();
    all.dedup();
    legend(&area, &all).map_err(unable)?;
    area.present().map_err(unable)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type DrawingError = DrawingAreaErrorKind<<SVGBackend<'static> as DrawingBackend>::ErrorType>;

struct Panel<'a, 'b> {
    area: &'a Area<'b>,
    figures: &'a Figures,
    top: i32,
}

impl Panel<'_, '_> {
    fn draw(&self, part: Part, techniques: &[Technique]) -> Result<(), DrawingError> {
        let operations = part.operations();
        text(self.area, &part.to_string(), (LEFT, self.top + 14), 17, HPos::Left)?;
        for ratio in AXIS {
            let y = self.y(ratio);
            let ink = if ratio == 1.0 { BLACK.mix(0.8) } else { BLACK.mix(0.15) };
            self.area.draw(&PathElement::new(vec![(LEFT, y), (WIDTH - RIGHT, y)], ink))?;
            text(self.area, &format!("{ratio}"), (LEFT - 8, y), 14, HPos::Right)?;
        }
        let group = (WIDTH - LEFT - RIGHT) / operations.len() as i32;
        let bar = (group - GAP) / techniques.len().max(1) as i32;
        for (at, &operation) in operations.iter().enumerate() {
            let left = LEFT + group * at as i32 + GAP / 2;
            for (index, &technique) in techniques.iter().enumerate() {
                self.bar((part, operation), technique, left + bar * index as i32, bar)?;
            }
            let middle = left + bar * techniques.len() as i32 / 2;
            text(self.area, &operation.to_string(), (middle, self.y(0.0) + 14), 14, HPos::Center)?;
            if let Some(plain) = self.figures.speed(part, operation, Technique::Plain) {
                let told = format!("1 = {:.0} {}", plain.median, operation.unit());
                text(self.area, &told, (middle, self.y(0.0) + 30), 12, HPos::Center)?;
            }
        }
        Ok(())
    }

    /// A bar with its ratio over it, or a cross where there is none.
    fn bar(
        &self,
        (part, operation): (Part, Operation),
        technique: Technique,
        left: i32,
        width: i32,
    ) -> Result<(), DrawingError> {
        let middle = left + width / 2;
        let ink = ink(technique);
        let Some(ratio) = self.figures.ratio(part, operation, technique) else {
            return text(self.area, "×", (middle, self.y(0.0) - 8), 14, HPos::Center);
        };
        let corners = [(left + 1, self.y(ratio.median)), (left + width - 1, self.y(0.0))];
        self.area.draw(&Rectangle::new(corners, ink.filled()))?;
        let spread = vec![(middle, self.y(ratio.least)), (middle, self.y(ratio.greatest))];
        self.area.draw(&PathElement::new(spread, BLACK.mix(0.7)))?;
        let shown = format!("{:.2}", ratio.median);
        text(self.area, &shown, (middle, self.y(ratio.greatest.max(ratio.median)) - 7), 10, HPos::Center)
    }

    /// What is beyond the axis ends at it; its number tells.
    fn y(&self, ratio: f64) -> i32 {
        let share = ratio.min(MOST) / MOST;
        self.top + PANEL - FOOT - (share * f64::from(PANEL - HEAD - FOOT)) as i32
    }
}

fn legend(area: &Area<'_>, techniques: &[Technique]) -> Result<(), DrawingError> {
    let title = "speed over the plain file's in the same round: more is faster; × can't be measured here";
    text(area, title, (LEFT, 14), 14, HPos::Left)?;
    for (at, &technique) in techniques.iter().enumerate() {
        let (column, row) = (at as i32 % COLUMNS, at as i32 / COLUMNS);
        let (x, y) = (LEFT + column * (WIDTH - LEFT - RIGHT) / COLUMNS, 34 + row * 20);
        area.draw(&Rectangle::new([(x, y - 6), (x + 12, y + 6)], ink(technique).filled()))?;
        text(area, &technique.to_string(), (x + 18, y), 14, HPos::Left)?;
    }
    Ok(())
}

fn text(area: &Area<'_>, text: &str, at: (i32, i32), size: i32, side: HPos) -> Result<(), DrawingError> {
    let style = TextStyle::from(("sans-serif", size).into_font()).pos(Pos::new(side, VPos::Center));
    area.draw(&Text::new(text.to_owned(), at, style))
}

fn ink(technique: Technique) -> RGBColor {
    match technique {
        Technique::Plain | Technique::VhdFixed | Technique::Volume => RGBColor(150, 150, 150),
        Technique::Reflink => RGBColor(200, 60, 20),
        Technique::Qcow2Compat => RGBColor(70, 90, 120),
        Technique::Qcow2Fast => RGBColor(120, 160, 205),
        Technique::VhdDynamic => RGBColor(190, 160, 70),
        Technique::Vhd => RGBColor(110, 130, 50),
        Technique::Dm => RGBColor(90, 60, 110),
        Technique::LvmThick => RGBColor(150, 110, 170),
        Technique::LvmThin => RGBColor(60, 140, 120),
    }
}

const WIDTH: i32 = 900;
const LEFT: i32 = 50;
const RIGHT: i32 = 20;
const PANEL: i32 = 300;
const HEAD: i32 = 44;
const FOOT: i32 = 44;
const LEGEND: i32 = 90;
const COLUMNS: i32 = 3;
/// Between two groups.
const GAP: i32 = 20;
const AXIS: [f64; 7] = [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5];
const MOST: f64 = 1.5;
