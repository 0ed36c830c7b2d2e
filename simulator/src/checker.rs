//! What must hold of a result, whatever the machines decide. It knows only the scenario and the result.

use core::time::Duration;

use crate::report::Report;
use crate::scenario::Scenario;

/// The least time that a host needs from its arrival: all bytes must pass its own link, and must have left the publisher
/// once, who began at the start.
pub(crate) fn host_bound(scenario: &Scenario, host: usize, data_len: u64) -> Duration {
    let plan = &scenario.hosts[host];
    let own_link = time_of(data_len, plan.access.down);
    let publisher = time_of(data_len, scenario.hosts[0].access.up).saturating_sub(plan.arrives);
    let is_elsewhere = plan.rack != scenario.hosts[0].rack;
    let uplink = scenario.rack_uplink.filter(|_| is_elsewhere).map(|uplink| time_of(data_len, uplink));
    own_link.max(publisher).max(uplink.unwrap_or_default().saturating_sub(plan.arrives))
}

/// The least time from the start until the last of `finished` hosts is complete: what all get, all must have sent.
pub(crate) fn fleet_bound(scenario: &Scenario, finished: usize, data_len: u64) -> Duration {
    let up: u64 = scenario.hosts.iter().map(|host| host.access.up).sum();
    time_of(data_len * finished as u64, up)
}

/// Compares a result with the bounds, and what was sent with what came.
pub(crate) fn check_report(scenario: &Scenario, report: &Report) -> Result<(), String> {
    for host in &report.hosts {
        if host.seconds < host.bound_seconds {
            let (number, seconds, bound) = (host.host, host.seconds, host.bound_seconds);
            return Err(format!("host {number} took {seconds} s, and can't in less than {bound} s"));
        }
        let came = host.publisher_bytes + host.peer_bytes;
        if came != report.data_bytes {
            return Err(format!("host {} is complete with {came} of {} bytes", host.host, report.data_bytes));
        }
    }
    if report.last_seconds < report.bound_seconds {
        return Err(format!("all took {} s, and can't in less than {} s", report.last_seconds, report.bound_seconds));
    }
    // What left and has not come was on its way when the world ended, or was for a host that died.
    if report.received_bytes + report.wasted_bytes > report.sent_bytes {
        return Err(format!(
            "{} bytes came and {} came in vain, of {} sent",
            report.received_bytes, report.wasted_bytes, report.sent_bytes
        ));
    }
    let links = scenario.hosts.iter().map(|host| host.access.up).sum::<u64>() as f64;
    if report.sent_bytes as f64 > links * report.last_seconds.max(report.bound_seconds) {
        return Err(format!("{} bytes were sent, more than all links carry", report.sent_bytes));
    }
    Ok(())
}

fn time_of(bytes: u64, bytes_per_s: u64) -> Duration {
    Duration::from_secs_f64(bytes as f64 / bytes_per_s as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::run;

    #[test]
    fn results_that_can_t_be_are_refused() {
        let text = "hosts = 2\nimage_mib = 4\nup_mbit_s = 100\ndown_mbit_s = 100";
        let scenario = Scenario::parse(text, None).unwrap();
        let good = run(&scenario).unwrap();
        assert_eq!(check_report(&scenario, &good), Ok(()));
        let with = |change: fn(&mut Report)| {
            let mut report = good.clone();
            change(&mut report);
            check_report(&scenario, &report).unwrap_err()
        };
        assert!(with(|report| report.hosts[0].seconds = 0.3).contains("can't in less"));
        assert!(with(|report| report.last_seconds = 0.3).contains("can't in less"));
        assert!(with(|report| report.hosts[1].peer_bytes += 1).contains("complete with"));
        assert!(with(|report| report.received_bytes += 4 << 20).contains("came in vain"));
        assert!(with(|report| report.sent_bytes = u64::MAX).contains("all links"));
    }
}
