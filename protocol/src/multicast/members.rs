//! Who takes part in a session, how each fares, and who is worse off than the rest.
//!
//! A member is an outlier while it loses more than 2 % and more than four times what the median member loses. What outliers lose
//! counts for nothing: they will be left out and go on by the swarm. But if more than a quarter are outliers, it is not them,
//! it is the network, and then everybody counts and nobody is left out.
//!
//! A member whose link, socket or disk is slower than the rest says so. The session goes at the rate that brings most to all
//! together: one member of eight is not waited for, seven of eight are. Who can't follow is left out, however many they are:
//! it is not the network that makes them slow.

use std::collections::BTreeMap;

use super::config::SenderConfig;
use super::message::Report;
use super::rate::share;
use crate::geometry::PieceIndex;
use crate::have::PieceSet;
use crate::id::PeerId;
use crate::time::Instant;

/// One host that takes part.
#[derive(Clone, Debug)]
pub(super) struct Member {
    /// Pieces that it lacks and that were not sent since it joined.
    pub wants: PieceSet,
    /// When it was heard last.
    pub heard: Instant,
    /// Blocks that failed their verification there.
    pub rejected: u32,
    link: u64,
    /// The counts of the report that the next loss is measured from.
    baseline: Counts,
    /// What the network lost on the way to it lately, in ppm; unknown at first.
    loss: Option<u32>,
    /// Reports in a row that made it an outlier.
    outlying: u32,
    /// Bytes per second that it can take, if it can't keep up.
    takes: Option<u64>,
    /// How often in a row it was found to be slower than the session.
    slow: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Counts {
    expected: u64,
    received: u64,
    dropped: u64,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Members {
    members: BTreeMap<PeerId, Member>,
}

impl Members {
    /// A host takes part, and lacks the pieces that it `wants`. A `link` of 0 is not known.
    pub(super) fn join(&mut self, now: Instant, peer: PeerId, wants: PieceSet, link: u64) {
        let member = Member {
            wants,
            heard: now,
            rejected: 0,
            link,
            baseline: Counts::default(),
            loss: None,
            outlying: 0,
            takes: None,
            slow: 0,
        };
        self.members.insert(peer, member);
    }

    /// A host does not take part any more.
    pub(super) fn remove(&mut self, peer: PeerId) -> Option<Member> {
        self.members.remove(&peer)
    }

    /// A member reports while `rate` bytes per second are sent.
    pub(super) fn report(&mut self, now: Instant, peer: PeerId, report: &Report, rate: u64) {
        let median = self.median_loss();
        let Some(member) = self.members.get_mut(&peer) else { return };
        member.heard = now;
        member.rejected = report.rejected;
        let counts = Counts { expected: report.expected, received: report.received, dropped: report.dropped };
        let [expected, received, dropped] = counts.since(member.baseline);
        if expected < SAMPLE_PACKETS {
            return;
        }
        member.baseline = counts;
        let loss = ppm(expected.saturating_sub(received).saturating_sub(dropped), expected);
        member.loss = Some(loss);
        member.outlying = if is_outlier(loss, median) { member.outlying + 1 } else { 0 };
        // A socket that overflows is a host that is too slow, not a network that loses.
        member.takes = if dropped * 100 > expected {
            Some((u128::from(rate) * u128::from(received.min(expected)) / u128::from(expected)) as u64)
        } else {
            (report.backlog > BACKLOG_NOTABLE).then_some(report.drain_bytes_per_s)
        };
    }

    /// A piece is sent to all: nobody wants it any more.
    pub(super) fn satisfy(&mut self, piece: PieceIndex) {
        for member in self.members.values_mut() {
            member.wants.remove(piece);
        }
    }

    /// The member, if it is one.
    pub(super) fn get_mut(&mut self, peer: PeerId) -> Option<&mut Member> {
        self.members.get_mut(&peer)
    }

    /// Number of members.
    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// All of them, in the order of their ids.
    pub(super) fn peers(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.members.keys().copied()
    }

    /// When somebody was heard last.
    pub(super) fn last_heard(&self) -> Option<Instant> {
        self.members.values().map(|member| member.heard).max()
    }

    /// Members that were last heard before `deadline`.
    pub(super) fn silent_since(&self, deadline: Instant) -> Vec<PeerId> {
        self.members.iter().filter(|(_, member)| member.heard < deadline).map(|(&peer, _)| peer).collect()
    }

    /// Members that have been outliers for so many reports.
    pub(super) fn outlying_for(&self, reports: u32) -> Vec<PeerId> {
        self.members.iter().filter(|(_, member)| member.outlying >= reports).map(|(&peer, _)| peer).collect()
    }

    /// Whether so many are outliers that the network is at fault. One never is so many.
    pub(super) fn is_network_at_fault(&self) -> bool {
        let outliers = self.outliers();
        outliers > 1 && outliers * 4 > self.members.len()
    }

    /// The loss in ppm of the member at this rank from the best, in percent, among those who count; `None` before a third of all
    /// told: the median of so many is no outlier's, and hosts that multicast does not reach never tell.
    pub(super) fn quantile_loss(&self, percent: usize) -> Option<u32> {
        let median = self.median_loss();
        let all_count = self.is_network_at_fault();
        let losses = self.members.values().filter_map(|member| member.loss);
        let mut losses: Vec<u32> = losses.filter(|&loss| all_count || !is_outlier(loss, median)).collect();
        losses.sort_unstable();
        if losses.len() * 3 < self.members.len() { None } else { at_rank(&losses, percent) }
    }

    /// The rate, of at most `most` bytes per second, that brings most to all members together, if each takes part that can follow. It is
    /// not lowered for the few that the quantile leaves out.
    pub(super) fn best_rate(&self, most: u64, config: &SenderConfig) -> u64 {
        let mut rates: Vec<u64> = self.members.values().map(|member| member.follows(config).min(most)).collect();
        rates.sort_unstable_by(|a, b| b.cmp(a));
        let enough = rank(rates.len(), config.quantile_percent);
        let sums = rates.iter().zip(1..).map(|(&rate, count)| (u128::from(rate) * enough.min(count) as u128, rate));
        // Of two that bring the same the later one, which leaves out fewer.
        sums.max_by_key(|&(sum, _)| sum).map_or(most, |(_, rate)| rate)
    }

    /// Members that can't follow a session of `rate` bytes per second: by their links, or by their sockets and disks as they were found some times
    /// in a row.
    pub(super) fn too_slow_for(&mut self, rate: u64, config: &SenderConfig) -> Vec<PeerId> {
        let mut slow = Vec::new();
        for (&peer, member) in &mut self.members {
            member.slow = if member.follows(config) < rate { member.slow + 1 } else { 0 };
            if member.link_follows(config) < rate || member.slow >= SLOW_TIMES {
                slow.push(peer);
            }
        }
        slow
    }

    fn outliers(&self) -> usize {
        let median = self.median_loss();
        self.members.values().filter(|member| member.loss.is_some_and(|loss| is_outlier(loss, median))).count()
    }

    fn median_loss(&self) -> u32 {
        let mut losses: Vec<u32> = self.members.values().filter_map(|member| member.loss).collect();
        losses.sort_unstable();
        // The lower one of two, so that one of two members can be an outlier.
        losses.len().checked_sub(1).map_or(0, |last| losses[last / 2])
    }
}

impl Member {
    /// Bytes per second that it can take.
    fn follows(&self, config: &SenderConfig) -> u64 {
        self.link_follows(config).min(self.takes.unwrap_or(u64::MAX))
    }

    fn link_follows(&self, config: &SenderConfig) -> u64 {
        if self.link == 0 { u64::MAX } else { share(self.link, config.link_share_percent) }
    }
}

impl Counts {
    /// Expected, received and dropped since an earlier report. A member that counts backwards has counted nothing.
    fn since(self, earlier: Counts) -> [u64; 3] {
        [
            self.expected.saturating_sub(earlier.expected),
            self.received.saturating_sub(earlier.received),
            self.dropped.saturating_sub(earlier.dropped),
        ]
    }
}

fn is_outlier(loss: u32, median: u32) -> bool {
    loss > OUTLIER_LEAST.max(median.saturating_mul(OUTLIER_FACTOR))
}

/// The value at this rank of a sorted list, in percent.
fn at_rank<T: Copy>(sorted: &[T], percent: usize) -> Option<T> {
    sorted.get(rank(sorted.len(), percent) - 1).copied()
}

/// The rank among so many that this share of them does not go beyond, from 1 on.
fn rank(len: usize, percent: usize) -> usize {
    (len * percent).div_ceil(100).clamp(1, len.max(1))
}

fn ppm(part: u64, whole: u64) -> u32 {
    (u128::from(part.min(whole)) * 1_000_000 / u128::from(whole.max(1))) as u32
}

/// Packets that a loss is measured over at the least: fewer make it a game of dice.
const SAMPLE_PACKETS: u64 = 64;
/// Loss below which nobody is an outlier (2 %).
const OUTLIER_LEAST: u32 = 20_000;
/// An outlier loses so many times what the median loses.
const OUTLIER_FACTOR: u32 = 4;
/// A member is too slow when it was found so this often in a row, a quarter of a second each: reports may tell of the time before the last cut.
const SLOW_TIMES: u32 = 6;
/// Bytes that wait for a disk without it being slow: what comes in within an eighth of a second at 1 Gbit/s.
const BACKLOG_NOTABLE: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::Geometry;

    fn peer(number: u8) -> PeerId {
        PeerId::from_bytes([number; 32])
    }

    fn members(count: u8) -> Members {
        let mut members = Members::default();
        let none = PieceSet::empty(&Geometry::of_len(1 << 20).unwrap());
        (0..count).for_each(|number| members.join(Instant::START, peer(number), none.clone(), 0));
        members
    }

    /// Member `number` lost so many of a thousand packets more, `dropped` of them at its own socket.
    fn report(members: &mut Members, number: u8, round: u64, lost: u64, dropped: u64) {
        let (expected, received) = (round * 1000, round * (1000 - lost));
        let report = Report { expected, received, dropped: round * dropped, ..Report::default() };
        members.report(Instant::from_millis(round), peer(number), &report, 1_000_000);
    }

    #[test]
    fn the_loss_of_most_counts_and_that_of_an_outlier_never() {
        let mut members = members(8);
        for (number, lost) in [0, 1, 2, 3, 4, 5, 6, 900].into_iter().enumerate() {
            report(&mut members, number as u8, 1, lost, 0);
        }
        assert_eq!(members.quantile_loss(85), Some(5_000));
        assert_eq!(members.quantile_loss(100), Some(6_000));
        assert!(!members.is_network_at_fault());
    }

    #[test]
    fn an_outlier_is_one_after_some_reports_in_a_row() {
        let mut members = members(4);
        for round in 1..=3 {
            (0..3).for_each(|number| report(&mut members, number, round, 1, 0));
            report(&mut members, 3, round, 500, 0);
        }
        assert_eq!(members.outlying_for(3), [peer(3)]);
        assert!(members.outlying_for(4).is_empty());
    }

    #[test]
    fn if_more_than_a_quarter_are_outliers_all_count() {
        let mut members = members(8);
        for number in 0..8 {
            report(&mut members, number, 1, if number < 3 { 300 } else { 1 }, 0);
        }
        assert!(members.is_network_at_fault());
        assert_eq!(members.quantile_loss(85), Some(300_000));
    }

    #[test]
    fn a_socket_that_overflows_is_a_slow_host_and_no_loss() {
        let mut members = members(1);
        report(&mut members, 0, 1, 400, 400);
        assert_eq!(members.quantile_loss(85), Some(0));
        assert_eq!(members.best_rate(1_000_000, &config()), 600_000);
    }

    /// Members with links of these rates.
    fn linked(links: &[u64]) -> Members {
        let mut members = Members::default();
        let none = PieceSet::empty(&Geometry::of_len(1 << 20).unwrap());
        for (number, &link) in links.iter().enumerate() {
            members.join(Instant::START, peer(number as u8), none.clone(), link);
        }
        members
    }

    /// Of whole links.
    fn config() -> SenderConfig {
        SenderConfig { link_share_percent: 100, quantile_percent: 85, ..SenderConfig::default() }
    }

    #[test]
    fn the_rate_is_the_one_that_brings_most_to_all_together() {
        let best = |links: &[u64]| linked(links).best_rate(1_000, &config());
        assert_eq!(best(&[]), 1_000);
        assert_eq!(best(&[0, 0, 2_000]), 1_000, "a link that is not known, or faster than the sender's");
        assert_eq!(best(&[1_000, 1_000, 1_000, 200]), 1_000);
        assert_eq!(best(&[1_000, 900, 900, 900]), 900);
        assert_eq!(best(&[1_000, 100, 100, 100]), 1_000, "three that together take less than one");
        assert_eq!(best(&[1_000, 500]), 500, "rather with both");
        assert_eq!(best(&[1_000, 1_000, 1_000, 1_000, 1_000, 1_000, 1_000, 950]), 1_000, "one of eight never counts");
        assert_eq!(linked(&[1_000]).best_rate(1_000, &SenderConfig::default()), 970);
    }

    #[test]
    fn who_cannot_follow_is_named_by_its_link_at_once_and_by_its_socket_after_a_while() {
        let mut members = linked(&[1_000_000, 200_000, 0, 0]);
        report(&mut members, 2, 1, 400, 400);
        for _ in 1..SLOW_TIMES {
            assert_eq!(members.too_slow_for(1_000_000, &config()), [peer(1)]);
        }
        assert_eq!(members.too_slow_for(1_000_000, &config()), [peer(1), peer(2)]);
        report(&mut members, 2, 2, 0, 0);
        assert_eq!(members.too_slow_for(1_000_000, &config()), [peer(1)]);
    }

    #[test]
    fn nothing_is_known_before_a_third_have_told() {
        let mut members = members(6);
        report(&mut members, 0, 1, 1, 0);
        assert_eq!(members.quantile_loss(85), None);
        report(&mut members, 1, 1, 1, 0);
        assert_eq!(members.quantile_loss(85), Some(1_000));
    }
}
