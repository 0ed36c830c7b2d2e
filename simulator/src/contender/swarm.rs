//! Ours: the real machines, in the world of [`crate::run`], with and without multicast.

use core::time::Duration;

use drover_protocol::time::Instant;

use super::{CompareError, Contender, Course};
use crate::report::{HostReport, Report};
use crate::scenario::Scenario;
use crate::world::{RunError, run_as_far, run_with_multicast};

/// What the swarm did.
pub(super) fn exchange(scenario: &Scenario) -> Result<Course, CompareError> {
    Ok(course_of(scenario, run_as_far(scenario)?))
}

/// What the swarm and multicast did together.
pub(super) fn exchange_with_multicast(scenario: &Scenario) -> Result<Course, CompareError> {
    let (report, unfinished) = run_with_multicast(scenario)?;
    for host in &report.hosts {
        let came = host.publisher_bytes + host.peer_bytes;
        if came != report.data_bytes {
            let problem = format!("host {} is complete with {came} of {} bytes", host.host, report.data_bytes);
            return Err(CompareError::Impossible { contender: Contender::Hybrid, problem });
        }
    }
    Ok(course_of(scenario, (report, unfinished)))
}

fn course_of(scenario: &Scenario, (report, unfinished): (Report, Option<RunError>)) -> Course {
    let stopped = unfinished.map(|_| format!("they lacked something to the end, at {:?}", scenario.deadline));
    Course { stopped, ..course(scenario, &report) }
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
