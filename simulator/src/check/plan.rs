//! What is to happen in one run: everything is drawn from the seed, widely, before the run begins.

use core::time::Duration;

use drover_protocol::geometry::Geometry;
use drover_protocol::manifest::Manifest;
use drover_protocol::message::PROTOCOL_VERSIONS;
use drover_protocol::rng::Rng;
use drover_protocol::swarm::SwarmConfig;
use drover_protocol::time::Instant;

use super::disk::DiskDice;
use super::token;

/// Chunks of a piece.
const CHUNKS_PER_PIECE: u32 = 2;
/// The share of seeds with false hints, and what makes their dice others than those of the rest.
const FALSE_HINTS: f64 = 0.1;
const HINTS: u64 = 0x68_696e_7473;
/// The share of those in which every tracker lies, and the same for them.
const LIARS_ONLY: f64 = 0.25;
const LIARS: u64 = 0x6c_6961_7273;
const PIECE_LEN: u32 = CHUNKS_PER_PIECE * drover_protocol::geometry::CHUNK_LEN;

/// A run as it is drawn.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    /// What the right tokens are made from.
    pub(super) tag: u64,
    pub(super) manifest: Manifest,
    /// What a liar hands out instead.
    pub(super) wrong_manifest: Manifest,
    pub(super) hosts: Vec<HostPlan>,
    pub(super) config: SwarmConfig,
    pub(super) net: NetDice,
    /// When faults end.
    pub(super) heals_at: Instant,
    /// What happens when, in no order.
    pub(super) trouble: Vec<(Instant, Trouble)>,
    /// How likely the tracker lies in an answer.
    pub(super) tracker_lies: f64,
    /// Whether a second tracker and the hash table say where hosts are not, to the end.
    pub(super) has_false_hints: bool,
    /// Whether there is a tracker that does not.
    pub(super) has_true_tracker: bool,
    pub(super) has_releases: bool,
    /// Whether liars go on after all faults have ended.
    pub(super) liars_stay: bool,
}

/// One host as it is drawn. The first is the publisher.
#[derive(Clone, Debug)]
pub(super) struct HostPlan {
    pub(super) lie: Option<Lie>,
    /// Lowest and highest version of the protocol that it speaks.
    pub(super) versions: (u16, u16),
    /// Bytes a second out.
    pub(super) rate: u64,
    pub(super) rack: Option<String>,
    pub(super) disk: DiskDice,
    /// The longest that its disk takes for a chunk.
    pub(super) disk_time: Duration,
    pub(super) arrives: Instant,
    /// It belongs to the cluster and does not exchange the image.
    pub(super) is_bystander: bool,
}

/// How a hostile host behaves.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Lie {
    /// This share of its chunks is wrong.
    WrongBytes(f64),
    /// It says that it holds everything.
    FalseHave,
    /// It hands out another manifest.
    WrongManifest,
    /// It announces pieces that there are not.
    BadHave,
    /// It goes on with this share of the requests that it takes, and not with the others.
    Stalls(f64),
    /// It asks for everything at once.
    Greedy,
}

/// How the network behaves until it heals.
#[derive(Clone, Copy, Debug)]
pub(super) struct NetDice {
    pub(super) latency: Duration,
    /// How likely a packet is lost.
    pub(super) loss: f64,
    /// How likely something takes much longer, and how long at most.
    pub(super) delay: (f64, Duration),
    /// How likely a chunk comes although its request was cancelled.
    pub(super) late: f64,
}

/// Something that happens to the fleet at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) enum Trouble {
    /// A host loses its power; it is back after some time, or at the end.
    Crash {
        host: usize,
        back_after: Duration,
    },
    /// The same, after its disk did so many more things; it is back soon.
    PowerCut {
        host: usize,
        after_ops: u32,
    },
    /// A host is gone for good.
    Death {
        host: usize,
    },
    Suspend {
        host: usize,
        time: Duration,
    },
    ClockJump {
        host: usize,
        by_s: i64,
    },
    Full {
        host: usize,
        time: Duration,
    },
    ReadOnly {
        host: usize,
        time: Duration,
    },
    Stall {
        host: usize,
        time: Duration,
    },
    Rot {
        host: usize,
    },
    Break {
        a: usize,
        b: usize,
    },
    OneWay {
        from: usize,
        to: usize,
        time: Duration,
    },
    /// Hosts whose bit is set are cut off from the others for a while, again and again.
    Flap {
        group: u32,
        times: u32,
        time: Duration,
    },
    TrackerRestart,
}

impl Plan {
    /// The run of a seed.
    pub(super) fn draw(seed: u64) -> Self {
        let mut plan = Self::draw_bad_day(seed);
        plan.has_false_hints = Rng::seeded(seed ^ HINTS).chance(FALSE_HINTS);
        if plan.has_false_hints {
            plan.has_true_tracker = !Rng::seeded(seed ^ LIARS).chance(LIARS_ONLY);
            plan.add_bystanders();
        }
        plan
    }

    /// The same fleet on a day on which nothing goes wrong, but that somebody may lie about where hosts are. The number says
    /// which of several such days it is.
    pub(super) fn calm(seed: u64, has_false_hints: bool, day: u64) -> Self {
        let mut plan = Self::draw_bad_day(seed);
        plan.add_bystanders();
        plan.seed = seed ^ day << 48;
        plan.has_false_hints = has_false_hints;
        plan.heals_at = Instant::from_millis(1);
        (plan.net.loss, plan.net.delay.0, plan.net.late) = (0.0, 0.0, 0.0);
        (plan.tracker_lies, plan.has_releases) = (0.0, false);
        plan.trouble.clear();
        for host in &mut plan.hosts {
            (host.lie, host.versions, host.disk) = (None, PROTOCOL_VERSIONS, DiskDice::default());
        }
        plan
    }

    fn add_bystanders(&mut self) {
        let more = 1 + self.seed % 3;
        let bystander =
            HostPlan { lie: None, versions: PROTOCOL_VERSIONS, is_bystander: true, ..self.hosts[0].clone() };
        self.hosts.extend((0..more).map(|_| bystander.clone()));
    }

    fn draw_bad_day(seed: u64) -> Self {
        let mut rng = Rng::seeded(seed);
        let host_count = 3 + if rng.chance(0.3) { rng.below(10) } else { rng.below(4) } as usize;
        let (tag, manifest, wrong_manifest) = draw_image(&mut rng);
        let lasts = Duration::from_millis(u64::from(4000 + rng.below(26_000)));
        let heals_at = Instant::START + lasts;
        let config = draw_config(&mut rng);
        // The image takes about as long as the faults last, so that they hit while there is something to hit.
        let data_len = manifest.data_len();
        let usual_rate = (data_len * 1000 / (lasts.as_millis() as u64)).max(1) * u64::from(2 + rng.below(6));
        let unkind = rng.chance(0.75);
        let has_racks = rng.chance(0.3);
        let mut hosts: Vec<HostPlan> = (0..host_count)
            .map(|_| HostPlan {
                lie: None,
                versions: PROTOCOL_VERSIONS,
                rate: usual_rate * u64::from(1 + rng.below(16)) / 4,
                rack: has_racks.then(|| format!("r{}", rng.below(3))),
                disk: draw_disk(&mut rng, unkind),
                disk_time: Duration::from_micros(u64::from(1 + rng.below(20_000))),
                arrives: Instant::START + draw_millis(&mut rng, 500, 8000),
                is_bystander: false,
            })
            .collect();
        hosts[0].arrives = Instant::START;
        draw_lies(&mut rng, &mut hosts);
        draw_versions(&mut rng, &mut hosts);
        let net = NetDice {
            latency: Duration::from_micros(u64::from(100 + rng.below(20_000))),
            loss: if rng.chance(0.6) { f64::from(rng.below(30)) / 100.0 } else { 0.0 },
            delay: (if rng.chance(0.5) { 0.02 } else { 0.0 }, Duration::from_millis(u64::from(1 + rng.below(4000)))),
            late: f64::from(rng.below(3)) * 0.3,
        };
        let trouble = draw_trouble(&mut rng, host_count, lasts);
        let tracker_lies = if rng.chance(0.3) { 0.3 } else { 0.0 };
        let (has_releases, liars_stay) = (rng.chance(0.5), rng.chance(0.5));
        Plan {
            seed,
            tag,
            manifest,
            wrong_manifest,
            hosts,
            config,
            net,
            heals_at,
            trouble,
            tracker_lies,
            has_false_hints: false,
            has_true_tracker: true,
            has_releases,
            liars_stay,
        }
    }
}

/// Mostly less than `short`, now and then up to `long` milliseconds.
fn draw_millis(rng: &mut Rng, short: u32, long: u32) -> Duration {
    let most = if rng.chance(0.3) { long } else { short };
    Duration::from_millis(u64::from(rng.below(most)))
}

fn draw_image(rng: &mut Rng) -> (u64, Manifest, Manifest) {
    let pieces = [32_u32, 32, 40, 48, 64, 64, 96, 128, 192, 256][rng.below(10) as usize];
    // Many zeros where there are many pieces: a run costs what has to be sent.
    let zero_share = 1.0 - f64::from(20 + rng.below(60)) / f64::from(pieces.max(80));
    let geometry = Geometry::new(u64::from(pieces) * u64::from(PIECE_LEN), PIECE_LEN).expect("lengths of an image");
    let zeros: Vec<bool> =
        geometry.chunks().map(|chunk| chunk.number() > 0 && rng.chance(zero_share.clamp(0.0, 0.95))).collect();
    let (tag, other) = (rng.next_u64(), rng.next_u64());
    let make = |tag| token::manifest(tag, geometry, |chunk| zeros[chunk as usize]);
    (tag, make(tag), make(other))
}

fn draw_config(rng: &mut Rng) -> SwarmConfig {
    let few = |rng: &mut Rng, most: u32| 1 + rng.below(most) as usize;
    let mut config = SwarmConfig::default();
    if rng.chance(0.6) {
        config.upload_slots = few(rng, 4);
        config.sources_most = few(rng, 4);
        // With six of at most twelve others nobody can be cut off by chance.
        config.neighbours_sought = 6 + rng.below(8) as usize;
        config.neighbours_most = config.neighbours_sought + 6;
        config.random_first_pieces = rng.below(8);
        config.have_interval = Duration::from_millis(u64::from(5 + rng.below(250)));
    }
    if rng.chance(0.1) {
        config.upload_limit = Some(u64::from(256 + rng.below(4096)) << 10);
    }
    if rng.chance(0.1) {
        config.download_limit = Some(u64::from(256 + rng.below(4096)) << 10);
    }
    config
}

fn draw_disk(rng: &mut Rng, unkind: bool) -> DiskDice {
    let dice = |rng: &mut Rng, share: f64| if unkind && rng.chance(0.4) { share } else { 0.0 };
    DiskDice { read_error: dice(rng, 0.01), write_error: dice(rng, 0.02), sync_error: dice(rng, 0.1) }
}

fn draw_lies(rng: &mut Rng, hosts: &mut [HostPlan]) {
    if rng.chance(0.5) {
        return;
    }
    let liars = 1 + rng.below((hosts.len() as u32 - 1) / 2) as usize;
    for host in hosts.iter_mut().rev().take(liars) {
        host.lie = Some(match rng.below(6) {
            0 => Lie::WrongBytes(f64::from(1 + rng.below(10)) / 10.0),
            1 => Lie::FalseHave,
            2 => Lie::WrongManifest,
            3 => Lie::BadHave,
            4 => Lie::Stalls(f64::from(rng.below(9)) / 10.0),
            _ => Lie::Greedy,
        });
    }
}

fn draw_versions(rng: &mut Rng, hosts: &mut [HostPlan]) {
    if rng.chance(0.7) {
        return;
    }
    let (_, highest) = PROTOCOL_VERSIONS;
    for host in hosts.iter_mut().skip(1) {
        host.versions = match rng.below(4) {
            0 => (highest, highest + 1),
            1 => (0, highest),
            2 if rng.chance(0.5) => (highest + 1, highest + 2),
            _ => PROTOCOL_VERSIONS,
        };
    }
}

fn draw_trouble(rng: &mut Rng, hosts: usize, lasts: Duration) -> Vec<(Instant, Trouble)> {
    let count = rng.below(24);
    let millis = lasts.as_millis() as u32;
    let mut trouble: Vec<(Instant, Trouble)> = (0..count)
        .map(|_| {
            let at = Instant::START + Duration::from_millis(u64::from(rng.below(millis)));
            (at, draw_one(rng, hosts))
        })
        .collect();
    if rng.chance(0.15) {
        let at = Instant::START + Duration::from_millis(u64::from(rng.below(millis)));
        trouble.push((at, Trouble::Death { host: 0 }));
    }
    if rng.chance(0.15) {
        let at = Instant::START + Duration::from_millis(u64::from(rng.below(millis)));
        trouble.push((at, Trouble::Death { host: rng.below(hosts as u32) as usize }));
    }
    trouble
}

fn draw_one(rng: &mut Rng, hosts: usize) -> Trouble {
    let host = rng.below(hosts as u32) as usize;
    let other = (host + 1 + rng.below(hosts as u32 - 1) as usize) % hosts;
    let time = Duration::from_millis(50) + draw_millis(rng, 3000, 20_000);
    match rng.below(15) {
        0 | 1 => Trouble::Crash { host, back_after: time },
        2 | 3 => Trouble::PowerCut { host, after_ops: rng.below(40) },
        4 => Trouble::Suspend { host, time },
        5 => Trouble::ClockJump { host, by_s: i64::from(rng.below(2 * 366 * 86_400)) - 366 * 86_400 },
        6 => Trouble::Full { host, time },
        7 => Trouble::ReadOnly { host, time },
        8 => Trouble::Stall { host, time },
        9 => Trouble::Rot { host },
        10 | 11 => Trouble::Break { a: host, b: other },
        12 => Trouble::OneWay { from: host, to: other, time },
        13 => Trouble::Flap { group: rng.next_u64() as u32, times: 1 + rng.below(5), time: time / 3 },
        _ => Trouble::TrackerRestart,
    }
}
