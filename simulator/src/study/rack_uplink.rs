//! What crosses a rack's uplink.

use super::sweep::{seeds, seeds_text};
use super::{Extent, Plot, Point, StudyError};
use crate::contender::Contender;
use crate::plot::{Bar, Bars, ink};
use crate::scenario::Scenario;

pub(super) fn plot(extent: &Extent) -> Result<Plot, StudyError> {
    let (name, title) = ("rack-uplink", "Copies of the image that come into a rack");
    let scenario = format!(
        "hosts = {}\n{}racks = {RACKS}\nrack_oversubscription = 4.0\n",
        // One more place is the publisher's.
        extent.hosts - 1,
        extent.base()
    );
    let unaware = format!("{scenario}racks_are_known = false\n");
    let compared = COMPARED.into_iter().map(|contender| (contender.to_string(), contender, &scenario));
    let blind = [("p2p, racks unknown".to_owned(), Contender::P2p, &unaware)];
    let (mut bars, mut points) = (Vec::new(), Vec::new());
    for (line, contender, text) in compared.chain(blind) {
        let mut heights = Vec::new();
        for &seed in seeds(extent, contender) {
            let scenario = Scenario::parse(text, Some(seed))?;
            let outcome = contender.compete(&scenario)?;
            let most = outcome.rack_bytes.iter().skip(1).max().copied().unwrap_or_default();
            let copies = most as f64 / scenario.data_len() as f64;
            points.push(Point { plot: name.to_owned(), line: line.clone(), x: 0.0, y: Some(copies), seed });
            heights.push(copies);
        }
        heights.sort_by(f64::total_cmp);
        let spread = (heights[0], heights[heights.len() - 1]);
        bars.push(Bar { name: line, ink: ink(contender), height: heights[heights.len() / 2], spread });
    }
    let label = "copies into the rack that took most; 1 is the least that feeds it".to_owned();
    let svg = Bars { title: title.to_owned(), label, bars }.svg()?;
    let text = format!(
        "{RACKS} racks of {} hosts; an uplink carries a quarter of what its hosts do. The publisher's own rack is left \
         out. A swarm that knows its racks lets the image in about once and hands it on inside; one that does not \
         takes more from elsewhere. One server sends a copy for each host. The strokes show the least and the most of all seeds.",
        extent.hosts / RACKS
    );
    let scenario = format!("{scenario}{}", seeds_text(extent));
    Ok(Plot { name, title, text, scenario, svg, points })
}

const RACKS: usize = 4;
const COMPARED: [Contender; 6] =
    [Contender::Nfs, Contender::Tree, Contender::Chain, Contender::Multicast, Contender::Hybrid, Contender::P2p];
