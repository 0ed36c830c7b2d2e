//! `drover status`: how the daemon and its transfers stand.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use drover_protocol::id::ImageId;
use drover_protocol::multicast::choice::Mode;

use super::output::animated;
use super::progress::{Rate, line, reading, wait_reason};
use super::{Common, Exit};
use crate::control::Problem;
use crate::control::api::{Phase, Status as Report, Transfer};
use crate::exchange::{MulticastRole, MulticastStatus, Source};
use crate::quantity::{Bytes, show_duration};

/// Show how the daemon stands: trackers, transfers, peers
#[derive(Args, Debug)]
pub(super) struct Status {
    /// Show it again every second (with --json: one object a line) until interrupted
    #[arg(long)]
    watch: bool,
}

impl Status {
    pub(super) async fn run(&self, common: &Common) -> Result<Exit, Problem> {
        let (client, output) = (common.client(), common.output());
        let mut rates = BTreeMap::new();
        loop {
            let report: Report = client.get("/v1/status").await?;
            let now = Instant::now();
            for transfer in &report.transfers {
                rates.entry(transfer.image).or_insert_with(Rate::default).push(now, transfer.held_bytes);
            }
            if self.watch && !output.is_json() && animated() {
                // Home, and clear to the end of the screen: no flicker, and nothing of the last round stays.
                output.line("\x1b[H\x1b[2J")?;
            }
            output.print(&report, |report| show(report, &rates))?;
            if !self.watch {
                return Ok(Exit::Done);
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
                _ = tokio::signal::ctrl_c() => return Ok(Exit::Interrupted),
            }
        }
    }
}

fn show(report: &Report, rates: &BTreeMap<ImageId, Rate>) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let since = |then: u64| show_duration(Duration::from_secs(now.saturating_sub(then)));
    let left = report.certificate_expires_unix_s.saturating_sub(now);
    let listen = report.listen.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mut lines = vec![
        format!("host         {} ({})", report.host, report.peer.short()),
        format!("daemon       {} on {listen}, up {}", report.version, since(report.started_unix_s)),
        match left {
            0 => format!("certificate  expired {} ago; {REJOIN}", since(report.certificate_expires_unix_s)),
            _ => format!("certificate  good for {}", show_duration(Duration::from_secs(left))),
        },
    ];
    for tracker in &report.trackers {
        let state = match (&tracker.problem, tracker.reachable) {
            (_, true) => "answers".to_owned(),
            (Some(problem), false) => format!("does not answer: {problem}"),
            (None, false) => "does not answer".to_owned(),
        };
        lines.push(format!("tracker      {} {state}", tracker.address));
        lines.extend(tracker.node_problem.iter().map(|problem| format!("             but {problem}")));
    }
    for host in &report.static_peers {
        let state = match (&host.problem, host.peer) {
            (Some(problem), _) => format!("does not answer: {problem}"),
            (None, Some(peer)) if peer == report.peer => "is this host".to_owned(),
            (None, Some(peer)) => format!("was reached ({})", peer.short()),
            (None, None) => "is not tried yet".to_owned(),
        };
        lines.push(format!("static peer  {} {state}", host.address));
    }
    lines.push(format!("hosts        {}", hosts(report)));
    lines.extend(away(report).map(|away| format!("             {away}")));
    if let Some(dht) = &report.dht {
        lines.push(match (dht.listen, &dht.problem) {
            (Some(listen), None) if dht.restarts > 0 => format!(
                "dht          on {listen}, {} nodes known; started anew {} times, since its thread ended",
                dht.nodes, dht.restarts
            ),
            (Some(listen), None) => format!("dht          on {listen}, {} nodes known", dht.nodes),
            (_, problem) => format!("dht          waits: {}", problem.as_deref().unwrap_or("it has just started")),
        });
    }
    lines.extend(report.warnings.iter().map(|warning| format!("warning      {warning}")));
    if !report.subscribed.is_empty() {
        let names = report.subscribed.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        lines.push(format!("subscribed   {names}"));
    }
    lines.extend(report.unposted.iter().map(|release| format!("unposted     {release}: no tracker took it yet")));
    let told = report.trackers.iter().any(|tracker| tracker.reachable);
    lines.extend(report.transfers.iter().flat_map(|transfer| transfer_lines(transfer, rates, told)));
    lines.join("\n")
}

/// Who is connected, or why nobody is.
fn hosts(report: &Report) -> String {
    let (connected, known) = (report.hosts.len(), report.known_hosts);
    if connected > 0 {
        let found = found_by(report.hosts.iter().filter_map(|host| host.found));
        return format!("{connected} connected ({found}), {known} known");
    }
    let told = report.trackers.iter().any(|tracker| tracker.reachable);
    let why = match (known, told, report.transfers.is_empty()) {
        (1.., ..) => "none of them has answered yet",
        (0, true, true) => "trackers name hosts that exchange the same master, and this one exchanges none yet",
        (0, true, false) => "no host that trackers know of exchanges what this one does",
        (0, false, _) => "no tracker answers and nobody is remembered; name a host that is up in the setting peers",
    };
    format!("0 connected, {known} known: {why}")
}

/// How those that are known and not connected came to be known, and how many of them can't be reached.
fn away(report: &Report) -> Option<String> {
    let addrs = || report.away.iter().filter_map(|host| host.addrs.first());
    let found = found_by(addrs().map(|addr| addr.found));
    let silent = addrs().filter(|addr| addr.failures > 0).count();
    let count = report.away.len();
    (count > 0).then(|| {
        format!("{count} known and not connected ({found}), {silent} of which did not answer when dialled last")
    })
}

/// What to do about an expired certificate.
const REJOIN: &str = "join again: drover join TRACKER TOKEN, with a token from `drover-tracker token`";

/// `told` is whether a tracker says how far the cluster is.
fn transfer_lines(transfer: &Transfer, rates: &BTreeMap<ImageId, Rate>, told: bool) -> Vec<String> {
    let label = if transfer.names.is_empty() { transfer.image.short() } else { transfer.names.join(", ") };
    let rate = rates.get(&transfer.image).map_or(0, Rate::per_second);
    let state = match transfer.phase {
        Phase::Complete => format!("complete, {}", Bytes(transfer.data_bytes)),
        Phase::Failed => format!("failed: {}", transfer.reason.as_deref().unwrap_or("see the log")),
        _ => line(&reading(transfer), rate),
    };
    let connected = transfer.peers.iter().filter(|peer| peer.connected).count();
    let cluster = match told {
        true => format!("{} have it, {} do not yet", transfer.seeders, transfer.leechers),
        false => "not known while no tracker answers".to_owned(),
    };
    let mut lines = vec![
        format!("{label}: {state}"),
        format!(
            "    {connected} peers, taken {}, given {}, wasted {}; cluster: {cluster}",
            Bytes(transfer.taken_bytes),
            Bytes(transfer.given_bytes),
            Bytes(transfer.wasted_bytes),
        ),
    ];
    lines.extend(multicast_line(&transfer.multicast).map(|line| format!("    multicast: {line}")));
    let found = found_by(transfer.peers.iter().filter(|peer| peer.connected).filter_map(|peer| peer.found));
    if !found.is_empty() {
        lines.push(format!("    found: {found}"));
    }
    lines.extend(wait_reason(transfer).map(|reason| format!("    {reason}")));
    lines
        .extend(transfer.banned.iter().map(|banned| format!("    banned {}: {}", banned.peer.short(), banned.misdeed)));
    lines
}

/// How multicast stands; nothing if the settings have it off.
fn multicast_line(multicast: &MulticastStatus) -> Option<String> {
    let lost = format!("{}.{:02} % lost", multicast.loss_ppm / 10_000, multicast.loss_ppm / 100 % 100);
    let why_not = multicast.why_not.as_deref();
    match (multicast.role, multicast.mode) {
        (MulticastRole::Sending, _) => Some(format!(
            "sending {}/s to {} hosts, {lost}, {} parity symbols in a block",
            Bytes(multicast.rate_bytes_per_s),
            multicast.members,
            multicast.parity
        )),
        (MulticastRole::Receiving, _) => {
            let brought = Bytes(multicast.brought_bytes);
            let away = why_not.map(|why| format!("; not listening: {why}")).unwrap_or_default();
            Some(format!("brought {brought}, {lost}, {} packets dropped by this host{away}", multicast.dropped_packets))
        }
        (MulticastRole::None, Mode::Off) => None,
        (MulticastRole::None, _) if multicast.brought_bytes > 0 => {
            Some(format!("brought {}, {lost}", Bytes(multicast.brought_bytes)))
        }
        (MulticastRole::None, _) => why_not.map(|why| format!("not used: {why}")),
    }
}

/// How many of these were found in which way.
fn found_by(sources: impl Iterator<Item = Source>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for source in sources {
        *counts.entry(source.word()).or_default() += 1;
    }
    counts.iter().map(|(word, count)| format!("{count} {word}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a daemon of a cluster with one tracker says of one transfer.
    fn report(reachable: bool) -> Report {
        let (peer, other) = ("ab".repeat(32), "cd".repeat(32));
        let host = |address: &str, peer: Option<&str>, problem: Option<&str>| serde_json::json!({ "address": address, "peer": peer, "problem": problem });
        let transfer = serde_json::json!({
            "image": peer, "names": ["golden@1"], "phase": "complete", "reason": null, "held_bytes": 1, "data_bytes": 1,
            "content_len": 1, "wasted_bytes": 0, "given_bytes": 0, "taken_bytes": 1, "peers": [], "unavailable": [],
            "banned": [], "seeders": 3, "leechers": 2,
        });
        let report = serde_json::json!({
            "v": 1, "version": "1", "host": "host", "peer": peer, "listen": [], "state": "/s", "started_unix_s": 0,
            "certificate_expires_unix_s": 0, "subscribed": [], "unposted": [], "transfers": [transfer],
            "trackers": [{ "address": "tracker:7440", "reachable": reachable }],
            "static_peers": [
                host("10.7.0.4:7444", Some(&peer), None),
                host("10.7.0.5:7444", Some(&other), None),
                host("10.7.0.6:7444", None, Some("no answer")),
            ],
        });
        serde_json::from_value(report).expect("what the daemon says")
    }

    #[test]
    fn how_far_the_cluster_is_is_said_only_while_a_tracker_says_it() {
        let shown = |reachable| show(&report(reachable), &BTreeMap::new());
        assert!(shown(true).contains("cluster: 3 have it, 2 do not yet"), "{}", shown(true));
        assert!(shown(false).contains("cluster: not known while no tracker answers"), "{}", shown(false));
    }

    #[test]
    fn hosts_of_the_settings_are_shown_with_what_is_wrong() {
        let shown = show(&report(true), &BTreeMap::new());
        assert!(shown.contains("static peer  10.7.0.4:7444 is this host\n"), "{shown}");
        assert!(shown.contains("static peer  10.7.0.5:7444 was reached (cdcd"), "{shown}");
        assert!(shown.contains("static peer  10.7.0.6:7444 does not answer: no answer"), "{shown}");
    }

    #[test]
    fn what_is_wrong_with_networks_is_shown() {
        let mut report = report(true);
        report.warnings = vec!["this host's own address".to_owned()];
        report.trackers[0].node_problem = Some("its node of the DHT".to_owned());
        let shown = show(&report, &BTreeMap::new());
        assert!(shown.contains("tracker:7440 answers\n             but its node of the DHT\n"), "{shown}");
        assert!(shown.contains("\nwarning      this host's own address\n"), "{shown}");
    }

    #[test]
    fn that_nobody_is_connected_is_said_with_the_reason() {
        let line = |report: &Report| {
            let shown = show(report, &BTreeMap::new());
            shown.lines().find(|line| line.starts_with("hosts ")).expect("it is always there").to_owned()
        };
        let (mut told, mut alone) = (report(true), report(false));
        assert!(line(&told).contains("0 connected, 0 known: no host that trackers know of"), "{}", line(&told));
        told.transfers.clear();
        assert!(line(&told).contains("this one exchanges none yet"), "{}", line(&told));
        assert!(line(&alone).contains("in the setting peers"), "{}", line(&alone));
        alone.known_hosts = 3;
        assert!(line(&alone).contains("0 connected, 3 known: none of them has answered yet"), "{}", line(&alone));
    }

    #[test]
    fn who_is_known_and_not_connected_is_shown_with_who_told_of_it() {
        let mut report = report(true);
        let host = |found: serde_json::Value, failures: u32| {
            let addr =
                serde_json::json!({ "addr": "10.7.0.9:7444", "found": found, "failures": failures, "retry_in_s": 0 });
            serde_json::from_value(serde_json::json!({ "peer": "cd".repeat(32), "met": false, "addrs": [addr] }))
        };
        let hosts =
            [host(serde_json::json!({ "by": "dht" }), 3), host(serde_json::json!({ "by": "tracker", "from": 0 }), 0)];
        report.away = hosts.into_iter().collect::<Result<_, _>>().expect("what the daemon says");
        let shown = show(&report, &BTreeMap::new());
        let line = "\n             2 known and not connected (1 by a tracker, 1 in the DHT), 1 of which did not answer when dialled last\n";
        assert!(shown.contains(line), "{shown}");
    }

    #[test]
    fn the_ways_are_counted() {
        let sources = [Source::Tracker(0), Source::Dht, Source::Tracker(1)];
        assert_eq!(found_by(sources.into_iter()), "2 by a tracker, 1 in the DHT");
    }
}
