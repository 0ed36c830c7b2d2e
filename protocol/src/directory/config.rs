//! Knobs and bounds of a directory: each with its unit, its default and the reason for it.

use core::time::Duration;

/// What a [`Directory`](super::Directory) is told at construction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirectoryConfig {
    /// When a host that still fetches announces again: soon, because it needs peers and its progress is watched.
    pub leeching_interval: Duration,
    /// When a host that has everything it announced comes again: seldom, it wants nothing.
    pub seeding_interval: Duration,
    /// How long changes of swarms are collected, at the least, before those who watch are told: short beside what a person
    /// notices, long beside the moment in which a cohort begins together.
    pub telling_interval: Duration,
    /// How many announces per second all hosts together may be asked for, and how many times per second hosts may be told
    /// of changes. A fleet that is larger than this allows
    /// comes less often: 10,000 fetching hosts every 10 s.
    pub announces_per_s: u32,
    /// How many of its intervals a host may miss before it is forgotten: a lost announce or two is no death.
    pub intervals_kept: u32,
    /// How late the driver may be with a due timeout before the directory concludes that it slept, in which time no
    /// host can have announced and so none is forgotten.
    pub lateness: Duration,
    /// Most peers handed out for one swarm, however many are asked for.
    pub peers_handed_out_most: usize,
    /// Least share of the handed out that is from other racks than the asker's, in percent: enough that racks stay
    /// woven together when the one link between two neighbours in different racks goes.
    pub elsewhere_percent_least: usize,
    /// Most swarms that one host is remembered in: what a host can spoil is bounded.
    pub swarms_per_host_most: usize,
    /// Most hosts that are remembered in one swarm.
    pub hosts_per_swarm_most: usize,
    /// Most swarms that are remembered.
    pub swarms_most: usize,
    /// Most hosts in swarms, summed over all swarms. One costs some 300 bytes: 150 MB at the most.
    pub records_most: usize,
}

impl Default for DirectoryConfig {
    fn default() -> Self {
        DirectoryConfig {
            leeching_interval: Duration::from_secs(3),
            seeding_interval: Duration::from_secs(30),
            telling_interval: Duration::from_millis(200),
            announces_per_s: 1000,
            intervals_kept: 3,
            lateness: Duration::from_secs(3),
            peers_handed_out_most: crate::announce::MAX_PEERS_HANDED_OUT,
            elsewhere_percent_least: 25,
            swarms_per_host_most: 256,
            hosts_per_swarm_most: 65_536,
            swarms_most: 16_384,
            records_most: 500_000,
        }
    }
}
