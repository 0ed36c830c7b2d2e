//! Hosts and networks that fail: who is hit leaves and goes on by the swarm, the others do not notice.

use super::net::{LINK, Net, Path};
use super::sessions::{config, done, session};
use crate::multicast::config::ReceiverConfig;
use crate::multicast::message::{DismissReason, EndReason, LeaveReason};
use crate::multicast::receiver::AwayReason;
use crate::time::{Duration, Instant};

/// Eight hosts, something that happens after a second, and the end of the session.
fn disturbed(seed: u64, chunks: u32, fault: impl FnOnce(&mut Net)) -> Net {
    let mut net = Net::new(seed, chunks, config());
    (0..8).for_each(|_| _ = net.join(Path::default()));
    net.run_ms(1_000);
    fault(&mut net);
    net.run();
    net
}

/// When the last of the hosts 1 to 7 held 97 %.
fn others_done(net: &Net) -> f64 {
    (1..8).map(|host| done(net, host).as_nanos() as f64).fold(0.0, f64::max)
}

#[test]
fn who_is_killed_is_left_out_and_the_others_do_not_notice() {
    let calm = disturbed(1, 512, |_| ());
    let net = disturbed(1, 512, |net| net.hosts[0].is_dead = true);
    assert!(others_done(&net) <= others_done(&calm) * 1.03);
    assert_eq!(net.ended, Some(EndReason::Done));
}

#[test]
fn peers_are_asked_again_as_soon_as_multicast_brings_nothing() {
    let mut net = Net::new(1, 512, config());
    (0..4).for_each(|_| _ = net.join(Path::default()));
    let blocked_from = Some(Instant::from_millis(1_000));
    net.join(Path { blocked_from: Some(Instant::START), ..Path::default() });
    net.join(Path { blocked_from, ..Path::default() });
    let carried = |net: &Net| net.hosts.iter().map(|host| host.carried).collect::<Vec<_>>();
    assert_eq!(carried(&net), [false; 6], "nothing was sent yet");
    net.run_until(Instant::from_millis(900));
    assert_eq!(carried(&net), [true, true, true, true, false, true]);
    net.run_until(Instant::from_millis(1_400));
    assert_eq!(carried(&net), [true, true, true, true, false, false]);
    net.run();
    assert_eq!(carried(&net), [false; 6]);
}

#[test]
fn who_was_stopped_for_a_while_is_left_out_and_may_come_back() {
    let calm = disturbed(1, 1024, |_| ());
    let net = disturbed(1, 1024, |net| {
        net.hosts[0].is_dead = true;
        net.run_ms(2_500);
        net.hosts[0].is_dead = false;
        net.run_ms(500);
        let away = net.hosts[0].away;
        assert!(
            matches!(away, Some(AwayReason::Dismissed(DismissReason::Unknown) | AwayReason::SenderGone)),
            "{away:?}"
        );
    });
    assert!(others_done(&net) <= others_done(&calm) * 1.03);
}

#[test]
fn when_the_sender_is_killed_all_leave_within_two_seconds() {
    let mut killed = Instant::START;
    let net = disturbed(1, 512, |net| {
        (net.is_sender_dead, killed) = (true, net.now);
        net.run_ms(5_000);
    });
    for host in &net.hosts {
        assert_eq!(host.away, Some(AwayReason::SenderGone));
        let took = host.away_since.unwrap().since(killed);
        assert!(took <= Duration::from_secs(2), "{took:?}");
    }
}

#[test]
fn where_multicast_is_blocked_hosts_leave_within_two_seconds_and_the_others_go_on() {
    let calm = disturbed(1, 1024, |_| ());
    let blocked = Path { blocked_from: Some(Instant::START), ..Path::default() };
    let paths: Vec<Path> =
        (0..8).map(|host| if host == 0 || host > 4 { blocked.clone() } else { Path::default() }).collect();
    let net = session(1, 1024, &paths);
    for host in [0, 5, 6, 7] {
        assert_eq!(net.hosts[host].away, Some(AwayReason::Left(LeaveReason::Silent)));
        assert!(net.hosts[host].away_since.unwrap() <= Instant::from_millis(2_000));
    }
    let last = (1..5).map(|host| done(&net, host).as_nanos() as f64).fold(0.0, f64::max);
    eprintln!("{last} ns, without the others {} ns", others_done(&calm));
    assert!(last <= others_done(&calm) * 1.03);
}

#[test]
fn when_multicast_is_blocked_everywhere_midway_there_is_soon_no_session() {
    let mut blocked = Instant::START;
    let net = disturbed(1, 1024, |net| {
        blocked = net.now;
        net.hosts.iter_mut().for_each(|host| host.path.blocked_from = Some(blocked));
    });
    for host in &net.hosts {
        assert!(host.away_since.unwrap().since(blocked) <= Duration::from_secs(2), "{:?}", host.away);
    }
    assert!(net.now.since(blocked) <= Duration::from_millis(2_100), "{:?}", net.ended);
}

#[test]
fn a_host_that_left_comes_back_when_packets_come_again() {
    let mut net = Net::new(1, 1024, config());
    (0..4).for_each(|_| _ = net.join(Path::default()));
    let config = ReceiverConfig { away: Duration::from_secs(1), ..ReceiverConfig::default() };
    let host = net.join_with(Path { blocked_from: Some(Instant::START), ..Path::default() }, config);
    net.run_ms(2_000);
    assert_eq!(net.hosts[host].away, Some(AwayReason::Left(LeaveReason::Silent)));
    net.hosts[host].path.blocked_from = None;
    net.run_ms(1_500);
    assert_eq!(net.hosts[host].away, None);
    net.run();
    assert!(net.share(host) > 0.3, "{}", net.share(host));
}

#[test]
fn a_host_whose_disk_is_behind_leaves() {
    let mut net = Net::new(1, 512, config());
    (0..7).for_each(|_| _ = net.join(Path::default()));
    let config =
        ReceiverConfig { backlog_most: 4 << 20, backlog_time: Duration::from_millis(500), ..ReceiverConfig::default() };
    let host = net.join_with(Path::default(), config);
    net.hosts[host].disk = Some(1_000_000);
    net.run();
    assert_eq!(net.hosts[host].away, Some(AwayReason::Left(LeaveReason::Disk)));
    assert!(net.share(host) < 0.9 && net.share(0) == 1.0);
}

#[test]
fn if_many_lose_much_at_any_rate_the_session_slows_down_and_stops() {
    let net = session(1, 1024, &vec![Path { loss: 0.2, ..Path::default() }; 8]);
    assert_eq!(net.ended, Some(EndReason::Network));
    let rate = net.sender.status().rate_bytes_per_s;
    assert!(rate < LINK / 2, "{rate} bytes/s at its end");
    assert!(net.now < Instant::from_millis(5_000), "{:?}", net.now);
}

#[test]
fn when_nobody_reports_any_more_nothing_is_sent_after_two_seconds() {
    let net = disturbed(1, 2048, |net| net.hosts.iter_mut().for_each(|host| host.is_dead = true));
    assert_eq!(net.ended, Some(EndReason::Deaf));
    assert!(net.now <= Instant::from_millis(3_600), "{:?}", net.now);
}

#[test]
fn all_faults_at_once_spoil_nothing_and_it_repeats_exactly() {
    let story = |seed| {
        let mut net = Net::new(seed, 256, config());
        let path = Path { loss: 0.02, duplicated: 0.02, delayed: 0.05, burst: 20, ..Path::default() };
        (0..8).for_each(|_| _ = net.join(path.clone()));
        _ = net.join(Path { rate: LINK / 10, ..path });
        _ = net.join(Path { blocked_from: Some(Instant::from_millis(900)), ..path });
        net.run_ms(700);
        net.hosts[0].is_dead = true;
        net.run();
        (net.sent_bytes, net.now, net.hosts.iter().map(|host| host.held.count()).collect::<Vec<_>>())
    };
    for seed in 1..=3 {
        let (sent, ended, held) = story(seed);
        eprintln!("{sent} bytes, ended at {ended:?}, held {held:?} of 256");
        assert!(held[1..8].iter().all(|&held| held >= 240), "{held:?}");
        assert_eq!((sent, ended, held), story(seed));
    }
}
