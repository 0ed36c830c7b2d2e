//! Machines that run from NFS: what they ask of the network, and how long they take to start.

use super::sweep::Sweep;
use super::{Extent, Plot, StudyError};
use crate::contender::{Contender, TCP_GOODPUT};
use crate::plot::{Chart, Line, Scale};
use crate::scenario::Scenario;

pub(super) fn plots(extent: &Extent) -> Result<[Plot; 2], StudyError> {
    Ok([load(extent)?, start(extent)?])
}

/// How full the server's wire is.
fn load(extent: &Extent) -> Result<Plot, StudyError> {
    let title = "Load of the NFS server's wire over the machines that run from it";
    let running = sweep("vm-load", |scenario, outcome| Some(percent(scenario, outcome.load_bytes_per_s as f64)));
    let starting = sweep("vm-load", |scenario, _| {
        let vms = scenario.vms?;
        let demand = vms.per_host as f64 * vms.boot_len as f64 / vms.boot_time.as_secs_f64();
        Some(percent(scenario, demand * (scenario.hosts.len() - 1) as f64))
    });
    let (mut lines, mut points) = (Vec::new(), Vec::new());
    for (sweep, name, is_dashed) in [(&running, "running", false), (&starting, "all starting", true)] {
        let (line, its) = sweep.line(extent, Contender::NfsOnDemand)?;
        lines.push(Line { name: format!("nfs, {name}"), is_dashed, ..line });
        points.extend(its.into_iter().map(|mut point| {
            point.line = format!("nfs, {name}");
            point
        }));
    }
    lines.push(Line {
        name: "local clones".to_owned(),
        ..Line::of(Contender::P2p, running.values.iter().map(|&vms| (vms, 0.0)).collect())
    });
    let svg = Chart {
        title: title.to_owned(),
        x: ("running machines".to_owned(), Scale::Log),
        y: ("% of the server's wire".to_owned(), Scale::Linear),
        lines,
    }
    .svg()?;
    let text = format!(
        "What {VMS_PER_HOST} machines on each host ask of one NFS server with 10 Gbit/s. A start reads 39.3 MiB (measured: \
         Debian 12 to its login prompt) within 10 s; a running machine reads 1 Mbit/s (assumed). There is no cache on the \
         hosts. Clones of a local master ask nothing of the network once the master is there: that line is by definition."
    );
    Ok(Plot { name: running.name, title, text, scenario: running.text(extent), svg, points })
}

/// How long until all have started.
fn start(extent: &Extent) -> Result<Plot, StudyError> {
    let title = "Time until all machines have started, over their number";
    let sweep = sweep("vm-start", |_, outcome| outcome.last_seconds);
    let (line, points) = sweep.line(extent, Contender::NfsOnDemand)?;
    let alone = sweep.bound(extent, |scenario| scenario.vms.map_or(0.0, |vms| vms.boot_time.as_secs_f64()))?;
    let lines = vec![line, Line { name: "no byte waited for".to_owned(), ..alone }];
    let svg = Chart {
        title: title.to_owned(),
        x: ("machines".to_owned(), Scale::Log),
        y: ("seconds until the last has started".to_owned(), Scale::Log),
        lines,
    }
    .svg()?;
    let text = "The same machines, all started at once. As soon as their reads fill the server's wire, twice as many \
                take twice as long."
        .to_owned();
    Ok(Plot { name: sweep.name, title, text, scenario: sweep.text(extent), svg, points })
}

fn sweep(name: &'static str, measure: fn(&Scenario, &crate::contender::Outcome) -> Option<f64>) -> Sweep {
    Sweep {
        name,
        base: format!(
            "image_mib = 2048\nup_mbit_s = 10000\ndown_mbit_s = 10000\nlatency_us = 100\n\
             vms = {{ per_host = {VMS_PER_HOST}, boot_mib = 39.3, boot_s = 10.0, read_mbit_s = 1.0 }}\n"
        ),
        values: VMS.to_vec(),
        changing: |_, vms| format!("hosts = {}", vms / VMS_PER_HOST as f64),
        measure,
    }
}

/// No more than all of it.
fn percent(scenario: &Scenario, bytes_per_s: f64) -> f64 {
    let wire = scenario.wires(TCP_GOODPUT)[0].up as f64;
    (100.0 * bytes_per_s / wire).min(100.0)
}

const VMS_PER_HOST: u64 = 10;
const VMS: [f64; 10] = [10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10_000.0];
