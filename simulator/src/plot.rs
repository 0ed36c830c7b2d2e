//! Charts as SVG: lines over linear or logarithmic axes, and bars. Text is in whatever sans-serif the viewer has.

use plotters::coord::Shift;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::contender::Contender;

/// How values lie on an axis.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scale {
    /// From zero.
    Linear,
    /// By powers of ten. Only values above zero have a place.
    Log,
}

/// Lines over two axes, each with what it counts.
#[derive(Clone, PartialEq, Debug)]
pub struct Chart {
    /// Over the chart.
    pub title: String,
    /// To the right.
    pub x: (String, Scale),
    /// Upwards.
    pub y: (String, Scale),
    /// In order of drawing.
    pub lines: Vec<Line>,
}

/// One line.
#[derive(Clone, PartialEq, Debug)]
pub struct Line {
    /// For the legend; a line without a name is one more of the same as an earlier one, and drawn thin.
    pub name: String,
    /// Its colour.
    pub ink: RGBColor,
    /// Whether it is broken, so that a line below it shows.
    pub is_dashed: bool,
    /// By rising x.
    pub points: Vec<(f64, f64)>,
    /// The least and the most that was measured, by rising x; a band is drawn between them.
    pub spread: Vec<(f64, f64, f64)>,
}

/// One bar.
#[derive(Clone, PartialEq, Debug)]
pub struct Bar {
    /// Below it.
    pub name: String,
    /// Its colour.
    pub ink: RGBColor,
    /// Where it ends.
    pub height: f64,
    /// The least and the most that was measured, drawn as a stroke.
    pub spread: (f64, f64),
}

/// Bars beside each other, with a line at 1.
#[derive(Clone, PartialEq, Debug)]
pub struct Bars {
    /// Over the chart.
    pub title: String,
    /// What the logarithmic axis counts.
    pub label: String,
    /// From left to right.
    pub bars: Vec<Bar>,
}

/// A chart can't be drawn.
#[derive(Debug, thiserror::Error)]
#[error("can't draw {title}: {cause}")]
pub struct PlotError {
    title: String,
    cause: String,
}

/// Colour of bounds.
pub const BOUND: RGBColor = BLACK;

impl Line {
    /// A contender's line.
    pub fn of(contender: Contender, points: Vec<(f64, f64)>) -> Self {
        // HTTP is as fast as NFS: as a broken line over the other's, both show.
        let is_dashed = contender == Contender::Http;
        Line { name: contender.to_string(), ink: ink(contender), is_dashed, points, spread: Vec::new() }
    }

    /// A bound's line.
    pub fn bound(name: &str, points: Vec<(f64, f64)>) -> Self {
        Line { name: name.to_owned(), ink: BOUND, is_dashed: true, points, spread: Vec::new() }
    }
}

/// A contender's colour.
pub fn ink(contender: Contender) -> RGBColor {
    match contender {
        Contender::P2p => RGBColor(200, 60, 20),
        Contender::Hybrid => RGBColor(140, 20, 110),
        Contender::Nfs => RGBColor(70, 90, 120),
        Contender::NfsOnDemand => RGBColor(90, 60, 110),
        Contender::Http => RGBColor(120, 160, 205),
        Contender::Multicast => RGBColor(190, 160, 70),
        Contender::Chain => RGBColor(60, 140, 120),
        Contender::Tree => RGBColor(110, 130, 50),
    }
}

impl Chart {
    /// Shares of hosts over time. Each line begins at nothing, and its last share holds to the end of the chart; a line
    /// without points is one of which nobody is complete.
    pub fn over_time(title: String, mut lines: Vec<Line>) -> Self {
        let times = || lines.iter().flat_map(|line| line.points.iter().map(|&(seconds, _)| seconds));
        let (first, last) = (times().fold(f64::INFINITY, f64::min), times().fold(0.0, f64::max));
        if first <= last {
            for Line { points, .. } in &mut lines {
                let reached = points.last().map_or(0.0, |&(_, share)| share);
                points.insert(0, (first / 1.5, 0.0));
                points.push((last * 1.5, reached));
            }
        }
        let (x, y) = (("seconds".to_owned(), Scale::Log), ("% of hosts that are complete".to_owned(), Scale::Linear));
        Chart { title, x, y, lines }
    }

    /// Draws it.
    ///
    /// # Errors
    /// There is nothing to draw.
    pub fn svg(&self) -> Result<String, PlotError> {
        let spread =
            |line: &Line| line.spread.iter().flat_map(|&(x, least, most)| [(x, least), (x, most)]).collect::<Vec<_>>();
        let points = || self.lines.iter().flat_map(|line| line.points.iter().copied().chain(spread(line)));
        let unable = |cause: String| PlotError { title: self.title.clone(), cause };
        let nothing = || unable("no point has a place on it".to_owned());
        let across = Axis::over(self.x.1, points().map(|(x, _)| x)).ok_or_else(nothing)?;
        let up = Axis::over(self.y.1, points().map(|(_, y)| y)).ok_or_else(nothing)?;
        let mut svg = String::new();
        let area = SVGBackend::with_string(&mut svg, (WIDTH as u32, HEIGHT as u32)).into_drawing_area();
        self.draw(&area, &across, &up).map_err(|cause| unable(cause.to_string()))?;
        drop(area);
        Ok(svg)
    }

    fn draw(&self, area: &Area<'_>, across: &Axis, up: &Axis) -> Result<(), DrawingError> {
        area.fill(&WHITE)?;
        text(area, &self.title, (LEFT, 16), 17, HPos::Left)?;
        text(area, &self.y.0, (8, 40), 14, HPos::Left)?;
        text(area, &self.x.0, (RIGHT, HEIGHT - 12), 14, HPos::Right)?;
        let (x, y) = (|value| across.place(value, LEFT, RIGHT), |value| up.place(value, BOTTOM, TOP));
        for tick in across.ticks() {
            area.draw(&PathElement::new(vec![(x(tick), TOP), (x(tick), BOTTOM)], GRID))?;
            text(area, &number(tick), (x(tick), BOTTOM + 12), 13, HPos::Center)?;
        }
        for tick in up.ticks() {
            area.draw(&PathElement::new(vec![(LEFT, y(tick)), (RIGHT, y(tick))], GRID))?;
            text(area, &number(tick), (LEFT - 6, y(tick)), 13, HPos::Right)?;
        }
        for line in self.lines.iter().filter(|line| !line.spread.is_empty()) {
            let edge = |of: fn(&(f64, f64, f64)) -> f64| line.spread.iter().map(move |all| (all.0, of(all)));
            let around = edge(|all| all.1).chain(edge(|all| all.2).rev());
            let around = around.filter(|&(at, value)| across.has(at) && up.has(value)).map(|(at, to)| (x(at), y(to)));
            area.draw(&Polygon::new(around.collect::<Vec<_>>(), line.ink.mix(0.2)))?;
        }
        let mut row = 0;
        for line in &self.lines {
            let has_place = |&&(at, value): &&(f64, f64)| across.has(at) && up.has(value);
            let path: Vec<(i32, i32)> = line.points.iter().filter(has_place).map(|&(at, to)| (x(at), y(to))).collect();
            stroke(area, path.clone(), line)?;
            if path.len() <= MARKED_MOST {
                path.iter().try_for_each(|&at| area.draw(&Circle::new(at, 3, line.ink.filled())))?;
            }
            if line.name.is_empty() {
                continue;
            }
            let at = TOP + 10 + 20 * row;
            row += 1;
            stroke(area, vec![(RIGHT + 12, at), (RIGHT + 40, at)], line)?;
            text(area, &line.name, (RIGHT + 46, at), 14, HPos::Left)?;
        }
        area.present()
    }
}

impl Bars {
    /// Draws them.
    ///
    /// # Errors
    /// There is nothing to draw.
    pub fn svg(&self) -> Result<String, PlotError> {
        let unable = |cause: String| PlotError { title: self.title.clone(), cause };
        let heights = self.bars.iter().flat_map(|bar| [bar.height, bar.spread.1]).chain([0.5, 10.0]);
        let up = Axis::over(Scale::Log, heights).expect("two heights have a place");
        if self.bars.is_empty() {
            return Err(unable("there are no bars".to_owned()));
        }
        let mut svg = String::new();
        let area = SVGBackend::with_string(&mut svg, (WIDTH as u32, HEIGHT as u32)).into_drawing_area();
        self.draw(&area, &up).map_err(|cause| unable(cause.to_string()))?;
        drop(area);
        Ok(svg)
    }

    fn draw(&self, area: &Area<'_>, up: &Axis) -> Result<(), DrawingError> {
        area.fill(&WHITE)?;
        text(area, &self.title, (LEFT, 16), 17, HPos::Left)?;
        text(area, &self.label, (8, 40), 14, HPos::Left)?;
        let y = |value| up.place(value, BOTTOM, TOP);
        for tick in up.ticks() {
            let ink = if tick == 1.0 { BLACK.mix(0.8) } else { GRID };
            area.draw(&PathElement::new(vec![(LEFT, y(tick)), (BAR_RIGHT, y(tick))], ink))?;
            text(area, &number(tick), (LEFT - 6, y(tick)), 13, HPos::Right)?;
        }
        let width = (BAR_RIGHT - LEFT) / self.bars.len() as i32;
        for (at, Bar { name, ink, height, spread: (least, most) }) in self.bars.iter().enumerate() {
            let middle = LEFT + width * at as i32 + width / 2;
            if up.has(*height) {
                let corners = [(middle - width / 4, y(*height)), (middle + width / 4, BOTTOM)];
                area.draw(&Rectangle::new(corners, ink.filled()))?;
                area.draw(&PathElement::new(vec![(middle, y(*least)), (middle, y(*most))], BLACK.stroke_width(2)))?;
                text(area, &format!("{height:.2}"), (middle, y(*most) - 9), 14, HPos::Center)?;
            } else {
                text(area, "none", (middle, BOTTOM - 9), 14, HPos::Center)?;
            }
            text(area, name, (middle, BOTTOM + 14), 14, HPos::Center)?;
        }
        area.present()
    }
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type DrawingError = DrawingAreaErrorKind<<SVGBackend<'static> as DrawingBackend>::ErrorType>;

/// The range of an axis.
struct Axis {
    scale: Scale,
    from: f64,
    to: f64,
}

impl Axis {
    /// An axis on which all values have a place that can have one; `None` if none can.
    fn over(scale: Scale, values: impl Iterator<Item = f64>) -> Option<Self> {
        let (least, most) = values.filter(|&value| scale == Scale::Linear || value > 0.0).fold(
            None,
            |range: Option<(f64, f64)>, value| {
                let (least, most) = range.unwrap_or((value, value));
                Some((least.min(value), most.max(value)))
            },
        )?;
        Some(match scale {
            Scale::Linear => Axis { scale, from: 0.0, to: if most > 0.0 { most * 1.05 } else { 1.0 } },
            Scale::Log => Axis { scale, from: least / 1.2, to: most * 1.2 },
        })
    }

    fn has(&self, value: f64) -> bool {
        (self.from..=self.to).contains(&value)
    }

    fn place(&self, value: f64, low: i32, high: i32) -> i32 {
        let share = match self.scale {
            Scale::Linear => value / self.to,
            Scale::Log => (value / self.from).ln() / (self.to / self.from).ln(),
        };
        low + (share * f64::from(high - low)).round() as i32
    }

    /// Round values, few enough to be read.
    fn ticks(&self) -> Vec<f64> {
        let decades = |factors: &[f64]| {
            let powers = (-9..10).map(|power| 10f64.powi(power));
            powers.flat_map(|power| factors.iter().map(move |factor| factor * power)).collect::<Vec<f64>>()
        };
        let within = |values: Vec<f64>| values.into_iter().filter(|&value| self.has(value)).collect::<Vec<f64>>();
        match self.scale {
            Scale::Log if self.to / self.from > 100.0 => within(decades(&[1.0])),
            Scale::Log => within(decades(&[1.0, 2.0, 5.0])),
            Scale::Linear => {
                let steps = decades(&[1.0, 2.0, 5.0]);
                let step = steps.into_iter().find(|step| self.to / step <= 8.0).unwrap_or(self.to);
                (0..=(self.to / step) as u32).map(|at| f64::from(at) * step).collect()
            }
        }
    }
}

fn stroke(area: &Area<'_>, path: Vec<(i32, i32)>, line: &Line) -> Result<(), DrawingError> {
    if line.name.is_empty() {
        area.draw(&PathElement::new(path, line.ink.mix(0.5)))
    } else if line.is_dashed {
        area.draw(&DashedPathElement::new(path, 6, 4, line.ink.stroke_width(2)))
    } else {
        area.draw(&PathElement::new(path, line.ink.stroke_width(2)))
    }
}

fn text(area: &Area<'_>, text: &str, at: (i32, i32), size: i32, side: HPos) -> Result<(), DrawingError> {
    let style = TextStyle::from(("sans-serif", size).into_font()).pos(Pos::new(side, VPos::Center));
    area.draw(&Text::new(text.to_owned(), at, style))
}

fn number(value: f64) -> String {
    // Twelve digits hide what a multiplication by a power of ten leaves.
    let rounded: f64 = format!("{value:.9}").parse().unwrap_or(value);
    format!("{rounded}")
}

const WIDTH: i32 = 900;
const HEIGHT: i32 = 420;
const LEFT: i32 = 70;
/// Names of lines are right of it.
const RIGHT: i32 = 690;
const BAR_RIGHT: i32 = 880;
const TOP: i32 = 54;
const BOTTOM: i32 = 370;
/// A line of more points needs no marks.
const MARKED_MOST: usize = 30;
const GRID: RGBAColor = RGBAColor(0, 0, 0, 0.15);
