//! What a session brings, in which time, and at what price.

use super::net::{LINK, Net, Path};
use crate::multicast::config::{ReceiverConfig, SenderConfig};
use crate::multicast::fec::SYMBOL_LEN;
use crate::multicast::message::{DismissReason, EndReason};
use crate::multicast::packet::{WIRE_OVERHEAD, packet_len};
use crate::multicast::receiver::AwayReason;
use crate::time::Instant;

pub(super) fn config() -> SenderConfig {
    SenderConfig { link_bytes_per_s: LINK, ..SenderConfig::default() }
}

/// A session with these hosts, from its beginning to its end.
pub(super) fn session(seed: u64, chunks: u32, paths: &[Path]) -> Net {
    let mut net = Net::new(seed, chunks, config());
    paths.iter().for_each(|path| _ = net.join(path.clone()));
    net.run();
    net
}

/// When this host held 97 % of the image.
pub(super) fn done(net: &Net, host: usize) -> Instant {
    net.hosts[host].mostly_done.unwrap_or_else(|| {
        panic!("host {host} holds {:.3} of the image, {:?}", net.share(host), net.hosts[host].machine.status())
    })
}

/// When the last of these held 97 % of the image, over the time that the image takes on the wire, packet by packet, at the link's rate.
pub(super) fn ratio(net: &Net, hosts: impl Iterator<Item = usize>) -> f64 {
    let last = hosts.map(|host| done(net, host)).max().unwrap();
    let wire = (packet_len(SYMBOL_LEN) + WIRE_OVERHEAD) as f64 / SYMBOL_LEN as f64;
    last.as_nanos() as f64 / 1e9 / (net.len() as f64 * wire / LINK as f64)
}

fn equal(count: usize, path: Path) -> Vec<Path> {
    vec![path; count]
}

#[test]
fn on_a_clean_network_everybody_gets_everything_for_the_price_of_one() {
    let net = session(1, 512, &equal(8, Path::default()));
    for host in 0..8 {
        assert_eq!(net.share(host), 1.0);
    }
    let (price, ratio) = (net.sent_bytes as f64 / net.len() as f64, ratio(&net, 0..8));
    eprintln!("sent {price:.3} x the image; the last had 97 % at {ratio:.3} of the bound; {:?}", net.sender.status());
    assert!(price < 1.06, "{price}");
    assert_eq!(net.ended, Some(EndReason::Done));
}

#[test]
fn at_a_per_cent_of_loss_nearly_everything_comes_for_a_tenth_more() {
    for seed in 1..=5 {
        let net = session(seed, 512, &equal(8, Path { loss: 0.01, ..Path::default() }));
        let (price, ratio) = (net.sent_bytes as f64 / net.len() as f64, ratio(&net, 0..8));
        let least = (0..8).map(|host| net.share(host)).fold(1.0, f64::min);
        eprintln!("least {least:.4}; sent {price:.3} x the image; 97 % at {ratio:.3}; {:?}", net.sender.status());
        assert!(least >= 0.97, "{least}");
        assert!(price <= 1.10, "{price}");
    }
}

#[test]
fn one_host_at_a_tenth_of_the_speed_does_not_slow_the_others() {
    for seed in 1..=3 {
        let alone = ratio(&session(seed, 512, &equal(7, Path::default())), 0..7);
        let mut paths = equal(8, Path::default());
        paths[7].rate = LINK / 10;
        let net = session(seed, 512, &paths);
        let ratio = ratio(&net, 0..7);
        eprintln!("the others {ratio:.3}, without it {alone:.3}; it: {:?}", net.hosts[7].away);
        assert!(ratio <= alone / 0.9, "{ratio} against {alone}");
        assert!(net.hosts[7].away.is_some());
    }
}

#[test]
fn hosts_whose_links_are_slow_are_left_out_at_once_however_many_they_are() {
    let alone = ratio(&session(1, 512, &equal(6, Path::default())), 0..6);
    for slow in [1, 2, 4] {
        let mut net = Net::new(1, 512, config());
        (0..6).for_each(|_| _ = net.join(Path::default()));
        for _ in 0..slow {
            let config = ReceiverConfig { link_bytes_per_s: LINK / 10, ..ReceiverConfig::default() };
            net.join_with(Path { rate: LINK / 10, ..Path::default() }, config);
        }
        net.run();
        let ratio = ratio(&net, 0..6);
        eprintln!("with {slow} slow ones {ratio:.3}, without {alone:.3}");
        assert!(ratio <= alone * 1.03, "{ratio} against {alone}");
        for host in &net.hosts[6..] {
            assert_eq!(host.away, Some(AwayReason::Dismissed(DismissReason::Slow)));
            assert!(host.away_since.unwrap() <= Instant::from_millis(500), "{:?}", host.away_since);
        }
    }
}

#[test]
fn bursts_cost_many_blocks_one_symbol_each() {
    let net = session(1, 512, &equal(8, Path { burst: 20, ..Path::default() }));
    let least = (0..8).map(|host| net.share(host)).fold(1.0, f64::min);
    eprintln!("least {least:.4}; sent {:.3} x the image", net.sent_bytes as f64 / net.len() as f64);
    assert!(least >= 0.97, "{least}");
}

#[test]
fn duplicates_and_reordering_cost_nothing() {
    let path = Path { duplicated: 0.05, delayed: 0.05, ..Path::default() };
    let net = session(1, 256, &equal(4, path));
    for host in 0..4 {
        assert_eq!(net.share(host), 1.0);
    }
    assert_eq!(net.sender.status().repair_packets, 0);
}

#[test]
fn who_joins_late_gets_the_rest_and_then_what_enough_of_them_lack() {
    let mut net = Net::new(1, 512, config());
    (0..8).for_each(|_| _ = net.join(Path::default()));
    net.run_ms(1_800);
    let at_joining = net.share(0);
    (0..5).for_each(|_| _ = net.join(Path::default()));
    let joined = net.now;
    net.run();
    eprintln!("joined at {at_joining:.2}; ended {:?} at {:?}", net.ended, net.now);
    for host in 8..13 {
        assert!(net.share(host) > 0.99, "{}", net.share(host));
        let took = done(&net, host).since(joined).as_secs_f64();
        let bound = net.len() as f64 * 1.08 / LINK as f64;
        assert!(took < bound * 1.15, "{took} s of {bound}");
    }
    assert!(net.sent_bytes < net.len() * 17 / 10, "what all had is not sent again");
}

#[test]
fn repair_serves_those_who_lost_different_symbols_of_a_block() {
    let paths = equal(16, Path { loss: 0.03, ..Path::default() });
    let with = session(1, 256, &paths);
    let mut without = Net::new(1, 256, SenderConfig { repair_percent_most: 0, ..config() });
    paths.iter().for_each(|path| _ = without.join(path.clone()));
    without.run();
    let mean = |net: &Net| (0..16).map(|host| net.share(host)).sum::<f64>() / 16.0;
    eprintln!("{:.4} with {:?}, {:.4} without", mean(&with), with.sender.status(), mean(&without));
    assert!(mean(&with) > mean(&without) + 0.005);
    assert!(with.sender.status().repair_packets * 10 <= with.sender.status().packets);
}

#[test]
fn the_administrators_limit_holds() {
    let mut net = Net::new(1, 64, SenderConfig { limit_bytes_per_s: Some(LINK / 4), ..config() });
    (0..3).for_each(|_| _ = net.join(Path::default()));
    net.run_ms(1_000 + config().gathering.as_millis() as u64);
    let wire = net.sent_bytes * (packet_len(SYMBOL_LEN) + WIRE_OVERHEAD) as u64 / packet_len(SYMBOL_LEN) as u64;
    assert!(wire <= LINK / 4 + LINK / 100, "{wire} bytes in a second");
    assert!(wire >= LINK / 8, "{wire} bytes in a second");
}

#[test]
fn a_network_that_carries_half_is_filled_by_half() {
    let net = session(1, 1024, &equal(8, Path { rate: LINK / 2, ..Path::default() }));
    let least = (0..8).map(|host| net.share(host)).fold(1.0, f64::min);
    let status = net.sender.status();
    eprintln!("least {least:.3} at {:?}, {status:?}", net.now);
    // Most of what lacks was lost in the first second, when the sender believed in links of twice the speed.
    assert!(least >= 0.92, "{least}");
    assert!((LINK / 2 * 85 / 100..LINK / 2 * 108 / 100).contains(&status.rate_bytes_per_s));
    let bound = net.len() as f64 * 1.08 / (LINK / 2) as f64;
    let took = (net.now.since(Instant::START) - config().linger).as_secs_f64();
    assert!(took <= bound * 1.2, "{took} s of {bound}");
}

#[test]
fn without_enough_members_nothing_is_sent() {
    let net = session(1, 64, &equal(1, Path::default()));
    assert_eq!((net.ended, net.sent_bytes), (Some(EndReason::TooFew), 0));
}
