//! Ours: the real machines, in the world of [`crate::run`].

use core::time::Duration;

use drover_protocol::time::Instant;

use super::{CompareError, Course};
use crate::report::{HostReport, Report};
use crate::scenario::Scenario;
use crate::world::run_as_far;

/// What the swarm did.
pub(super) fn exchange(scenario: &Scenario) -> Result<Course, CompareError> {
    let (report, unfinished) = run_as_far(scenario)?;
    let stopped = unfinished.map(|_| format!("they lacked something to the end, at {:?}", scenario.deadline));
    Ok(Course { stopped, ..course(scenario, &report) })
}

fn course(scenario: &Scenario, report: &Report) -> Course {
    let mut course = Course::new(scenario);
    for host in &report.hosts {
        course.completed[host.host] = Some(completed(host));
    }
    let bytes = |ratio: f64| (ratio * report.data_bytes as f64).round() as u64;
    course.source_bytes = bytes(report.publisher_sent_ratio);
    course.rack_bytes = report.rack_received_ratios.iter().map(|&ratio| bytes(ratio)).collect();
    course
}

fn completed(host: &HostReport) -> Instant {
    Instant::START + Duration::from_secs_f64(host.arrived_seconds + host.seconds)
}
