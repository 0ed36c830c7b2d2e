//! Time to the last host over the number of hosts.

use super::sweep::Sweep;
use super::{Extent, Plot, StudyError};
use crate::contender::Contender;
use crate::plot::{Chart, Scale};

pub(super) fn plot(extent: &Extent) -> Result<Plot, StudyError> {
    let sweep = Sweep {
        name: "fleet-size",
        base: extent.base(),
        values: extent.fleets.iter().map(|&hosts| hosts as f64).collect(),
        changing: |_, hosts| format!("hosts = {hosts}"),
        measure: |_, outcome| outcome.last_seconds,
    };
    let (mut lines, mut points) = (Vec::new(), Vec::new());
    for contender in COMPARED {
        let (line, its) = sweep.line(extent, contender)?;
        lines.push(line);
        points.extend(its);
    }
    lines.push(sweep.bound(extent, |scenario| scenario.data_len() as f64 / scenario.hosts[0].wire.up as f64)?);
    let title = "Time to the last host over the size of the fleet";
    let svg = Chart {
        title: title.to_owned(),
        x: ("hosts that fetch".to_owned(), Scale::Log),
        y: ("seconds until the last is complete".to_owned(), Scale::Log),
        lines,
    }
    .svg()?;
    let text = format!(
        "Equal hosts, all at once. One server needs N times as long for N hosts. A tree of whole images needs log2 N \
         times as long, a chain fills with N pieces, multicast waits for N answers to each slice. The swarm's \
         time hardly grows; it was run up to {} hosts. With multicast (hybrid) everything is sent once, and the swarm mends; it \
         was run up to {} hosts. The bound is one copy over one wire. Bands show the least and the most of all seeds.",
        extent.p2p_hosts_most, extent.hybrid_hosts_most
    );
    Ok(Plot { name: sweep.name, title, text, scenario: sweep.text(extent), svg, points })
}

const COMPARED: [Contender; 7] = [
    Contender::Nfs,
    Contender::Http,
    Contender::Tree,
    Contender::Chain,
    Contender::Multicast,
    Contender::P2p,
    Contender::Hybrid,
];
