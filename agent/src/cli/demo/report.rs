//! What the demo shows at its end.

use std::path::PathBuf;

use drover_protocol::id::ImageId;
use serde::Serialize;

use super::fleet::{Arrival, Host};
use crate::cli::output::table;
use crate::handover::Created;

/// The whole of it.
#[derive(Serialize)]
pub(super) struct Report {
    pub(super) image: ImageId,
    pub(super) data_bytes: u64,
    pub(super) hosts: Vec<HostReport>,
}

/// One host.
#[derive(Serialize)]
pub(super) struct HostReport {
    host: String,
    seconds: f64,
    from_publisher_bytes: u64,
    from_peers_bytes: u64,
    driver: String,
    clone: PathBuf,
}

impl HostReport {
    pub(super) fn new(host: &Host, arrival: Arrival, created: &Created) -> Self {
        HostReport {
            host: host.name.clone(),
            seconds: (arrival.seconds * 10.0).round() / 10.0,
            from_publisher_bytes: arrival.from_publisher,
            from_peers_bytes: arrival.from_peers,
            driver: created.record.driver.to_string(),
            clone: created.record.path.clone(),
        }
    }
}

impl Report {
    pub(super) fn table(&self) -> String {
        let mib = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
        let row = |host: &HostReport| {
            vec![
                host.host.clone(),
                format!("{:.1}", host.seconds),
                mib(host.from_publisher_bytes),
                mib(host.from_peers_bytes),
                host.driver.clone(),
                host.clone.display().to_string(),
            ]
        };
        let mut rows: Vec<Vec<String>> = self.hosts.iter().map(row).collect();
        let sum = |of: fn(&HostReport) -> u64| mib(self.hosts.iter().map(of).sum());
        let (publisher, peers) = (sum(|host| host.from_publisher_bytes), sum(|host| host.from_peers_bytes));
        rows.push(vec!["all".to_owned(), String::new(), publisher, peers, String::new(), String::new()]);
        let head = ["HOST", "SECONDS", "MiB FROM PUBLISHER", "MiB FROM PEERS", "DRIVER", "CLONE"];
        let table = table(&head, &rows, &[1, 2, 3]);
        format!("{table}\nthe master has {} MiB of data", mib(self.data_bytes))
    }
}

/// What comes after the demo.
pub(super) const NEXT_COMMANDS: &str = "
A real fleet begins with these three:
  drover-tracker init --state /var/lib/drover-tracker && drover-tracker run --state /var/lib/drover-tracker
  drover-tracker token --state /var/lib/drover-tracker          # once for each host
  drover join TRACKER:7440 TOKEN && drover daemon               # on each host";
