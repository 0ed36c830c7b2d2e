//! Stories about the directory, and random operations compared with what must hold.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const HERE: IpAddr = IpAddr::V4(core::net::Ipv4Addr::new(10, 0, 0, 1));

fn image(number: u8) -> ImageId {
    ImageId::from_bytes([number; 32])
}

fn peer(number: u32) -> PeerId {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    PeerId::from_bytes(bytes)
}

fn at(seconds: u64) -> Instant {
    Instant::from_millis(seconds * 1000)
}

/// A host's announce of one image, of which it holds `held` of 100 chunks.
fn announce(image: ImageId, held: u32, rack: Option<&str>) -> Announce {
    let swarm = SwarmAnnounce { image, held_chunks: held, data_chunks: 100, want_peers: 20, leaving: false };
    Announce { listen: vec!["0.0.0.0:7444".parse().unwrap()], rack: rack.map(str::to_owned), swarms: vec![swarm] }
}

fn leaving(image: ImageId) -> Announce {
    let mut announce = announce(image, 0, None);
    announce.swarms[0].leaving = true;
    announce
}

/// A directory, a clock and short ways to say things.
struct Story {
    directory: Directory,
    now: Instant,
    /// What those who watch were told, and when.
    changes: Vec<(Instant, ImageId, Cohort)>,
}

impl Story {
    fn new() -> Self {
        Story::with(DirectoryConfig::default())
    }

    fn with(config: DirectoryConfig) -> Self {
        Story { directory: Directory::new(config, 7), now: Instant::START, changes: Vec::new() }
    }

    fn says(&mut self, who: u32, announce: &Announce) -> Announced {
        let answer = self.directory.handle_announce(self.now, peer(who), HERE, announce);
        self.directory.check();
        answer
    }

    /// Whom `who` is told about image 1, of which it holds `held` of 100 chunks.
    fn told(&mut self, who: u32, held: u32, rack: Option<&str>) -> Vec<PeerId> {
        let answer = self.says(who, &announce(image(1), held, rack));
        answer.swarms[0].peers.iter().map(|peer| peer.peer).collect()
    }

    /// Time passes, and the driver wakes whenever it should.
    fn wait_until(&mut self, then: Instant) {
        while let Some(due) = self.directory.poll_timeout().filter(|&due| due <= then) {
            let due = due.max(self.now);
            self.directory.handle_timeout(due);
            self.changes.extend(self.directory.poll_changes(due).iter().map(|swarm| (due, swarm.image, swarm.cohort)));
            self.directory.check();
        }
        self.now = then;
    }
}

impl Directory {
    /// What must hold after every input.
    fn check(&self) {
        let mut records = 0;
        for (image, swarm) in &self.swarms {
            assert!(swarm.len() > 0, "an empty swarm is forgotten");
            let mut seeders = 0;
            for (peer, record) in swarm.iter() {
                let host = &self.hosts[&peer];
                assert!(host.images.contains(image), "host and swarm know of each other");
                assert!(self.expiries.contains(&(record.expires, peer, *image)), "every record expires");
                assert_eq!(swarm.place(peer).is_some(), !host.addrs.is_empty(), "who can be reached is in the pool");
                assert!(record.held_chunks <= record.data_chunks);
                seeders += u32::from(record.kind() == Kind::Seeder);
                records += 1;
            }
            assert_eq!(swarm.cohort().seeders, seeders);
            assert!(swarm.cohort().held_permille <= 1000);
        }
        assert_eq!(self.expiries.len(), records, "nothing expires twice");
        assert_eq!(self.hosts.values().map(|host| host.images.len()).sum::<usize>(), records);
        assert_eq!(self.hosts.values().filter(|host| host.leeching).count(), self.leeching_hosts);
        assert!(self.hosts.values().all(|host| !host.images.is_empty()), "a host without swarms is forgotten");
    }
}

#[test]
fn hosts_are_introduced_to_each_other_but_not_to_themselves() {
    let mut story = Story::new();
    assert_eq!(story.told(1, 100, None), []);
    assert_eq!(story.told(2, 0, None), [peer(1)]);
    assert_eq!(story.told(2, 0, None), [peer(1)]);
    assert_eq!(story.told(1, 100, None), [peer(2)]);
}

#[test]
fn a_seeder_is_told_of_leechers_only() {
    let mut story = Story::new();
    for seeder in 1..=5 {
        story.told(seeder, 100, None);
    }
    story.told(6, 30, None);
    assert_eq!(story.told(1, 100, None), [peer(6)]);
    story.told(6, 100, None);
    assert_eq!(story.told(1, 100, None), []);
}

#[test]
fn progress_is_told_with_every_answer() {
    let mut story = Story::new();
    story.told(1, 100, None);
    story.told(2, 0, None);
    let cohort = story.says(3, &announce(image(1), 50, None)).swarms[0].cohort;
    assert_eq!(cohort, Cohort { seeders: 1, leechers: 2, held_permille: 500 });
    assert_eq!(story.directory.cohort(image(1)), cohort);
    assert_eq!(story.directory.cohort(image(2)), Cohort::default());
    assert_eq!(story.directory.swarms().collect::<Vec<_>>(), [(image(1), cohort)]);
    let held: Vec<u32> = story.directory.hosts(image(1)).map(|host| host.held_chunks).collect();
    assert_eq!(held, [100, 0, 50]);
}

#[test]
fn a_host_that_lies_about_lengths_spoils_its_own_share_only() {
    let mut story = Story::new();
    story.told(1, 100, None);
    let mut lie = announce(image(1), u32::MAX, None);
    lie.swarms[0].data_chunks = 1;
    story.says(2, &lie);
    lie.swarms[0].held_chunks = 0;
    lie.swarms[0].data_chunks = u32::MAX;
    let cohort = story.says(3, &lie).swarms[0].cohort;
    assert_eq!(cohort, Cohort { seeders: 2, leechers: 1, held_permille: 666 });
}

#[test]
fn who_does_not_announce_is_forgotten_after_three_intervals() {
    let mut story = Story::new();
    let seeding = story.says(1, &announce(image(1), 100, None)).interval_ms;
    let leeching = story.says(2, &announce(image(1), 0, None)).interval_ms;
    assert_eq!((leeching, seeding), (3_000, 30_000));
    story.wait_until(at(8));
    assert_eq!(story.directory.cohort(image(1)).leechers, 1);
    story.wait_until(at(9));
    assert_eq!(story.directory.cohort(image(1)).leechers, 0);
    story.wait_until(at(60));
    story.told(1, 100, None);
    story.wait_until(at(149));
    assert_eq!(story.directory.cohort(image(1)).seeders, 1);
    story.wait_until(at(150));
    assert_eq!(story.directory.swarms().count(), 0);
    assert_eq!(story.directory.poll_timeout(), None);
}

#[test]
fn watchers_are_told_when_a_host_joins_completes_or_leaves_and_not_of_progress() {
    let mut story = Story::new();
    let now = |millis: u64| Instant::from_millis(10_000 + millis);
    story.wait_until(now(0));
    story.told(1, 100, None);
    story.wait_until(now(0));
    // Both within the time for which changes are collected.
    story.told(2, 0, None);
    story.told(3, 0, None);
    story.wait_until(now(1000));
    story.told(2, 50, None);
    story.wait_until(now(2000));
    story.told(2, 100, None);
    story.wait_until(now(3000));
    story.says(3, &leaving(image(1)));
    story.wait_until(now(3000));
    let told: Vec<_> = story.changes.iter().map(|(at, _, cohort)| (*at, cohort.seeders, cohort.leechers)).collect();
    assert_eq!(told, [(now(0), 1, 0), (now(200), 1, 2), (now(2000), 2, 1), (now(3000), 2, 0)]);
}

#[test]
fn who_leaves_is_forgotten_at_once() {
    let mut story = Story::new();
    story.told(1, 100, None);
    story.told(2, 0, None);
    story.says(1, &announce(image(2), 100, None));
    let answer = story.says(1, &leaving(image(1)));
    assert_eq!(answer.swarms[0].peers, []);
    assert_eq!(answer.swarms[0].cohort, Cohort { seeders: 0, leechers: 1, held_permille: 0 });
    assert_eq!(story.directory.cohort(image(2)).seeders, 1, "it stays in its other swarm");
    let now = story.now;
    story.directory.handle_leave(now, peer(1));
    story.directory.handle_leave(now, peer(2));
    story.directory.handle_leave(now, peer(3));
    story.directory.check();
    assert_eq!(story.directory.swarms().count(), 0);
}

#[test]
fn a_tracker_that_slept_forgets_nobody_for_it() {
    let mut story = Story::new();
    story.told(1, 100, None);
    story.told(2, 0, None);
    let woken = at(3600);
    story.directory.handle_timeout(woken);
    story.directory.check();
    assert_eq!(story.directory.cohort(image(1)), Cohort { seeders: 1, leechers: 1, held_permille: 500 });
    story.now = woken;
    story.told(1, 100, None);
    story.wait_until(woken + Duration::from_secs(10));
    assert_eq!(story.directory.cohort(image(1)).leechers, 0, "who is silent after that is forgotten");
    assert_eq!(story.directory.cohort(image(1)).seeders, 1);
}

#[test]
fn a_large_fleet_comes_less_often() {
    let mut story = Story::with(DirectoryConfig { announces_per_s: 10, ..DirectoryConfig::default() });
    let interval = |story: &mut Story, who, held| story.says(who, &announce(image(1), held, None)).interval_ms;
    for who in 0..30 {
        assert_eq!(interval(&mut story, who, 0), 3_000);
    }
    for who in 30..99 {
        interval(&mut story, who, 0);
    }
    assert_eq!(interval(&mut story, 99, 0), 10_000);
    assert_eq!(interval(&mut story, 99, 100), 30_000);
}

#[test]
fn peers_are_mostly_of_the_same_rack_and_a_quarter_from_elsewhere() {
    let mut story = Story::new();
    let rack_of = |who: u32| format!("rack-{}", who % 10);
    for who in 0..1000 {
        story.told(who, 1, Some(&rack_of(who)));
    }
    for who in 0..1000 {
        let told = story.told(who, 1, Some(&rack_of(who)));
        let near = told.iter().filter(|&&other| (0..100).any(|n| peer(n * 10 + who % 10) == other)).count();
        assert_eq!((told.len(), near), (20, 15));
    }
}

#[test]
fn hosts_without_a_rack_are_near_nobody() {
    let mut story = Story::new();
    for who in 0..100 {
        story.told(who, 1, (who < 50).then_some("a"));
    }
    let mut near = 0;
    for _ in 0..100 {
        near += story.told(99, 1, None).iter().filter(|&&other| other >= peer(50)).count();
    }
    assert!((800..1200).contains(&near), "{near} of 2,000 draws are among the 49 of 99");
}

#[test]
fn a_seeder_is_always_among_the_peers_of_a_leecher() {
    for seeder_rack in [None, Some("a"), Some("b")] {
        let mut story = Story::new();
        story.told(0, 100, seeder_rack);
        for who in 1..500 {
            story.told(who, 1, Some(if who % 2 == 0 { "a" } else { "b" }));
        }
        for who in 1..500 {
            let told = story.told(who, 1, Some(if who % 2 == 0 { "a" } else { "b" }));
            assert!(told.contains(&peer(0)), "host {who} knows no seeder");
            assert_eq!(told.len(), 20);
        }
        let mut one = announce(image(1), 1, Some("a"));
        one.swarms[0].want_peers = 1;
        assert_eq!(story.says(2, &one).swarms[0].peers[0].peer, peer(0));
    }
}

#[test]
fn a_host_that_moves_is_found_in_its_new_place() {
    let mut story = Story::new();
    story.told(1, 1, Some("a"));
    story.told(2, 1, Some("b"));
    story.told(1, 1, Some("b"));
    let mut unreachable = announce(image(1), 1, Some("b"));
    unreachable.listen = vec!["224.0.0.1:7444".parse().unwrap()];
    assert_eq!(story.told(2, 1, Some("b")), [peer(1)]);
    story.says(1, &unreachable);
    assert_eq!(story.told(2, 1, Some("b")), [], "who can't be reached is not handed out");
    assert_eq!(story.directory.cohort(image(1)).leechers, 2, "but counts");
    story.told(1, 1, Some("c"));
    assert_eq!(story.told(2, 1, Some("b")), [peer(1)]);
}

#[test]
fn what_one_host_can_fill_is_bounded() {
    let config = DirectoryConfig { swarms_per_host_most: 3, ..DirectoryConfig::default() };
    let mut story = Story::with(config);
    for number in 0..10 {
        story.says(1, &announce(image(number), 0, None));
    }
    assert_eq!(story.directory.swarms().count(), 3);
    story.says(1, &leaving(image(0)));
    story.says(1, &announce(image(9), 0, None));
    assert_eq!(story.directory.swarms().map(|(image, _)| image).collect::<Vec<_>>(), [image(1), image(2), image(9)]);
}

#[test]
fn who_finds_no_room_is_answered_all_the_same() {
    let bounds: [fn(&mut DirectoryConfig); 2] =
        [|config| config.hosts_per_swarm_most = 2, |config| config.records_most = 2];
    for bound in bounds {
        let mut config = DirectoryConfig::default();
        bound(&mut config);
        let mut story = Story::with(config);
        story.told(1, 100, None);
        story.told(2, 0, None);
        let mut told = story.told(3, 0, None);
        told.sort();
        assert_eq!(told, [peer(1), peer(2)]);
        assert_eq!(story.directory.cohort(image(1)).leechers, 1);
        assert_eq!(story.told(1, 100, None), [peer(2)], "who is in is renewed");
    }
    let mut story = Story::with(DirectoryConfig { swarms_most: 1, ..DirectoryConfig::default() });
    story.told(1, 100, None);
    assert_eq!(story.says(2, &announce(image(2), 0, None)).swarms[0].peers, []);
    assert_eq!(story.directory.swarms().count(), 1);
}

#[test]
fn an_announce_of_too_many_swarms_is_cut() {
    let mut story = Story::new();
    let mut many = announce(image(1), 0, None);
    many.swarms = (0..=255).map(|number| SwarmAnnounce { image: image(number), ..many.swarms[0] }).collect();
    assert_eq!(story.says(1, &many).swarms.len(), MAX_SWARMS);
    assert_eq!(story.directory.swarms().count(), MAX_SWARMS);
}

#[derive(Clone, Debug)]
enum Operation {
    Announce { who: u32, image: u8, held: u32, data: u32, rack: Option<u8>, reachable: bool, want: u16 },
    LeaveSwarm { who: u32, image: u8 },
    Leave { who: u32 },
    Pass { millis: u64 },
    Sleep { millis: u64 },
}

fn operation() -> impl Strategy<Value = Operation> {
    let announce = (0..40u32, 0..3u8, 0..4u32, 0..4u32, prop::option::of(0..4u8), any::<bool>(), 0..70u16);
    prop_oneof![
        8 => announce.prop_map(|(who, image, held, data, rack, reachable, want)| {
            Operation::Announce { who, image, held, data, rack, reachable, want }
        }),
        1 => (0..40u32, 0..3u8).prop_map(|(who, image)| Operation::LeaveSwarm { who, image }),
        1 => (0..40u32).prop_map(|who| Operation::Leave { who }),
        2 => (0..20_000u64).prop_map(|millis| Operation::Pass { millis }),
        1 => (0..100_000u64).prop_map(|millis| Operation::Sleep { millis }),
    ]
}

proptest! {
    #[test]
    fn whatever_is_announced_the_memory_is_whole_and_the_answer_keeps_the_rules(
        operations in prop::collection::vec(operation(), 1..200),
    ) {
        let mut story = Story::new();
        for operation in operations {
            match operation {
                Operation::Announce { who, image: number, held, data, rack, reachable, want } => {
                    let rack = rack.map(|rack| rack.to_string());
                    let mut announce = announce(image(number), held, rack.as_deref());
                    announce.swarms[0].data_chunks = data;
                    announce.swarms[0].want_peers = want;
                    if !reachable {
                        announce.listen.clear();
                    }
                    let answer = story.says(who, &announce);
                    check_answer(&story.directory, peer(who), &announce, &answer);
                }
                Operation::LeaveSwarm { who, image: number } => {
                    story.says(who, &leaving(image(number)));
                }
                Operation::Leave { who } => story.directory.handle_leave(story.now, peer(who)),
                Operation::Pass { millis } => story.wait_until(story.now + Duration::from_millis(millis)),
                Operation::Sleep { millis } => {
                    story.now = story.now + Duration::from_millis(millis);
                    story.directory.handle_timeout(story.now);
                }
            }
            story.directory.check();
        }
    }
}

/// Compares an answer with the rules, by counting what the directory knows.
fn check_answer(directory: &Directory, asker: PeerId, announce: &Announce, answer: &Announced) {
    let asked = &announce.swarms[0];
    let answer = &answer.swarms[0];
    let known: BTreeMap<PeerId, HostStatus> = directory.hosts(asked.image).map(|host| (host.peer, host)).collect();
    let seeds = |host: &HostStatus| host.data_chunks > 0 && host.held_chunks == host.data_chunks;
    let asker_seeds = seeds(&known[&asker]);
    let fits = |host: &HostStatus| host.peer != asker && !host.addrs.is_empty() && !(asker_seeds && seeds(host));
    let fitting: Vec<&HostStatus> = known.values().filter(|host| fits(host)).collect();
    let told: Vec<&HostStatus> = answer.peers.iter().map(|told| &known[&told.peer]).collect();

    assert_eq!(told.len(), fitting.len().min(usize::from(asked.want_peers)).min(64), "as many as wanted");
    assert!(told.iter().all(|host| fits(host)));
    let mut distinct: Vec<PeerId> = answer.peers.iter().map(|told| told.peer).collect();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), told.len(), "nobody twice");
    if !asker_seeds && !told.is_empty() && fitting.iter().any(|host| seeds(host)) {
        assert!(told.iter().any(|host| seeds(host)), "a seeder is among them");
    }
    let elsewhere = |host: &&&HostStatus| announce.rack.is_none() || host.rack != announce.rack;
    let (far, far_told) = (fitting.iter().filter(elsewhere).count(), told.iter().filter(elsewhere).count());
    if told.len() > 1 {
        assert!(far_told >= far.min(told.len().div_ceil(4)), "{far_told} of {} from elsewhere", told.len());
    }
}

#[test]
fn the_same_inputs_give_the_same_answers() {
    let run = || {
        let mut story = Story::new();
        (0..300).map(|who| story.told(who % 100, who / 3, Some(&(who % 7).to_string()))).collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}
