//! The publisher dies in the middle and is back much later.

use super::sweep::{seeds, seeds_text};
use super::{Extent, HOST_MBIT_S, Plot, Point, StudyError};
use crate::compare::curve;
use crate::contender::{Contender, Outcome};
use crate::plot::{Chart, Line};
use crate::scenario::Scenario;

/// One plot for each moment of death.
pub(super) fn plots(extent: &Extent) -> Result<Vec<Plot>, StudyError> {
    let moments = [
        (0.3, "source-dies-30", "Hosts that are complete: the source dies at 30 %"),
        (0.7, "source-dies-70", "Hosts that are complete: the source dies at 70 %"),
    ];
    moments.into_iter().map(|(share, name, title)| plot(extent, share, name, title)).collect()
}

fn plot(extent: &Extent, share: f64, name: &'static str, title: &'static str) -> Result<Plot, StudyError> {
    let copy = extent.copy_seconds();
    let scenario = format!(
        "hosts = {}\n{}publisher_up_mbit_s = {}\ndeaths = [{{ host = 0, at_s = {:.4}, back_at_s = {:.4} }}]\n{}",
        extent.hosts,
        extent.base(),
        2 * HOST_MBIT_S,
        share * copy,
        BACK_AT * copy,
        seeds_text(extent)
    );
    let (mut lines, mut points) = (Vec::new(), Vec::new());
    for contender in COMPARED {
        for &seed in seeds(extent, contender) {
            let outcome = contender.compete(&Scenario::parse(&scenario, Some(seed))?)?;
            let line = contender.to_string();
            let point = |(x, y)| Point { plot: name.to_owned(), line: line.clone(), x, y: Some(y), seed };
            points.extend(curve(&outcome).into_iter().map(point));
            let curve = Line::of(contender, curve(&outcome));
            let is_first = seed == extent.seeds[0];
            lines.push(if is_first { labelled(curve, &outcome) } else { Line { name: String::new(), ..curve } });
        }
    }
    let svg = Chart::over_time(title.to_owned(), lines).svg()?;
    let text = format!(
        "The source has twice the rate of a host. It dies after {:.0} % of the time that one copy takes a host's wire \
         ({copy:.3} s without headers), and is back after {BACK_AT:.0} such times. What had not left it by then exists \
         nowhere, and everybody waits for it. The swarm, which takes from its source over the whole time, and NFS go on \
         where they stood; HTTP and the tree begin their transfers again; a chain and a multicast session end for good. \
         p2p and hybrid are drawn with the first seed, and thin with the others.",
        share * 100.0
    );
    Ok(Plot { name, title, text, scenario, svg, points })
}

fn labelled(mut line: Line, outcome: &Outcome) -> Line {
    if outcome.unfinished.is_some() {
        let who = if outcome.last_seconds.is_some() { "not all" } else { "nobody" };
        line.name = format!("{}: {who}", line.name);
    }
    line
}

/// In copies over a host's wire.
const BACK_AT: f64 = 4.0;
const COMPARED: [Contender; 7] = [
    Contender::Nfs,
    Contender::Http,
    Contender::Tree,
    Contender::Chain,
    Contender::Multicast,
    Contender::P2p,
    Contender::Hybrid,
];
