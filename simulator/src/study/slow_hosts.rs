//! What slow hosts do to the others.

use super::sweep::Sweep;
use super::{Extent, HOST_MBIT_S, Plot, StudyError};
use crate::contender::{Contender, Outcome};
use crate::plot::{Chart, Scale};
use crate::scenario::Scenario;

pub(super) fn plot(extent: &Extent) -> Result<Plot, StudyError> {
    let sweep = Sweep {
        name: "slow-hosts",
        base: format!("hosts = {}\n{}", extent.hosts, extent.base()),
        values: vec![0.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0],
        changing: |extent, percent| {
            let slow = (extent.hosts as f64 * percent / 100.0).round();
            let rate = HOST_MBIT_S / 10;
            format!("other_rates = [{{ hosts = {slow}, up_mbit_s = {rate}, down_mbit_s = {rate} }}]")
        },
        measure: last_fast_host,
    };
    let (mut lines, mut points) = (Vec::new(), Vec::new());
    for contender in COMPARED {
        let (line, its) = sweep.line(extent, contender)?;
        lines.push(line);
        points.extend(its);
    }
    lines.push(sweep.bound(extent, |scenario| scenario.data_len() as f64 / scenario.hosts[1].wire.down as f64)?);
    let title = "Time of the fast hosts over the share of slow ones";
    let svg = Chart {
        title: title.to_owned(),
        x: ("% of hosts with a tenth of the rate".to_owned(), Scale::Linear),
        y: ("seconds until the last fast host is complete".to_owned(), Scale::Log),
        lines,
    }
    .svg()?;
    let text = "One slow host sets the rate of multicast for all, and that of a chain for all behind it. In a chain and a \
                tree the slow ones stand at the end here, where they harm least: that needs a fleet whose rates are known. \
                A swarm needs no order. A session of multicast goes at the rate that brings most to all its members together; hosts that can't \
                follow are left to the swarm. Bands show the least and the most of all seeds."
        .to_owned();
    Ok(Plot { name: sweep.name, title, text, scenario: sweep.text(extent), svg, points })
}

/// Host 1 is fast.
fn last_fast_host(scenario: &Scenario, outcome: &Outcome) -> Option<f64> {
    let is_fast = |host: usize| scenario.hosts[host].wire == scenario.hosts[1].wire;
    let fast = outcome.hosts.iter().filter(|host| is_fast(host.host));
    fast.map(|host| host.completed_seconds).reduce(|one, other| Some(one?.max(other?))).flatten()
}

const COMPARED: [Contender; 6] =
    [Contender::Nfs, Contender::Tree, Contender::Chain, Contender::Multicast, Contender::P2p, Contender::Hybrid];
