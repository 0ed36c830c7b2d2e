//! How fast a session sends: a controller that follows most receivers, and the pacing of packets.
//!
//! The controller raises the rate while a quantile of the receivers loses nothing, and lowers it when that quantile does; what the
//! few worst lose does not count, because they can go on by the swarm. It starts at three quarters of its ceiling and is there a rise
//! later.
//!
//! Not all loss comes from sending too fast. A cut is therefore judged: if the loss does not fall, it is the network's own,
//! becomes the base that only loss beyond it counts from, and the cut is undone. What is lost at the starting rate is taken for base
//! at once. Base has a limit: beyond that, and if cuts do not help again and again, the network is not fit for multicast, and
//! the controller says so. And little loss must last to count: a burst is not the rate's doing.
//!
//! All in whole numbers: bytes per second on the wire, loss in millionths (ppm).

use crate::time::{Duration, Instant};

/// The controller.
#[derive(Clone, Debug)]
pub struct Rate {
    rate: u64,
    ceiling: u64,
    phase: Phase,
    /// Loss that no cut takes away, in ppm; unknown at first.
    base: Option<u32>,
    /// What the path seemed to carry when a cut helped: near it, rises are small.
    knee: u64,
    /// Ticks in a row with a little too much loss.
    lossy_ticks: u32,
    /// Cuts in a row that did not end too much loss.
    failed_cuts: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Rises by half, until the first loss.
    Start,
    /// Rises by steps.
    Steady,
    /// After a cut: waits until reports tell of the time after it.
    Judging { before: u64, loss: u32, ticks_left: u32, was_start: bool },
}

impl Rate {
    /// A controller at its starting rate.
    pub fn new(ceiling: u64) -> Self {
        let ceiling = ceiling.max(RATE_LEAST);
        let rate = share(ceiling, START_PERCENT).max(RATE_LEAST);
        Rate { rate, ceiling, phase: Phase::Start, base: None, knee: u64::MAX, lossy_ticks: 0, failed_cuts: 0 }
    }

    /// The ceiling is another now.
    pub fn set_ceiling(&mut self, ceiling: u64) {
        self.ceiling = ceiling.max(RATE_LEAST);
        self.rate = self.rate.min(self.ceiling);
    }

    /// A tick: `loss` is what the quantile of receivers lost since the last one, in ppm.
    pub fn update(&mut self, loss: u32) {
        let base = *self.base.get_or_insert(if loss <= BASE_AT_START_MOST { loss } else { 0 });
        if let Phase::Judging { before, loss: loss_before, ticks_left, was_start } = self.phase {
            if ticks_left > 0 {
                self.phase = Phase::Judging { before, loss: loss_before, ticks_left: ticks_left - 1, was_start };
                return;
            }
            self.judge(before, loss_before, loss, was_start);
        } else if loss > base + cut_threshold(base) {
            self.lossy_ticks += 1;
            if loss - base > MUCH || self.lossy_ticks >= LOSSY_TICKS {
                self.cut(loss - base, loss);
            }
        } else {
            (self.lossy_ticks, self.failed_cuts) = (0, 0);
            if loss < base {
                self.base = Some(base - (base - loss).div_ceil(4));
            }
            if loss <= base + rise_threshold(base) {
                self.rise();
            } else if self.phase == Phase::Start {
                self.phase = Phase::Steady;
            }
        }
    }

    /// The reports before this tick came from a time that does not count, as when an outlier has just been left out: an
    /// open cut is taken back.
    pub fn forgive(&mut self) {
        if let Phase::Judging { before, was_start, .. } = self.phase {
            self.rate = before.min(self.ceiling);
            self.phase = if was_start { Phase::Start } else { Phase::Steady };
        }
    }

    /// Bytes per second on the wire.
    pub fn bytes_per_s(&self) -> u64 {
        self.rate
    }

    /// Whether so many cuts in a row were in vain that the network is not fit.
    pub fn is_hopeless(&self) -> bool {
        self.failed_cuts >= FAILED_CUTS_MOST
    }

    /// To what the path seems to carry, and a little less.
    fn cut(&mut self, excess: u32, loss: u32) {
        self.lossy_ticks = 0;
        let before = self.rate;
        let carried = (u128::from(before) * u128::from(1_000_000 - excess.min(500_000)) / 1_000_000) as u64;
        self.rate = share(carried, AFTER_CUT_PERCENT).max(RATE_LEAST);
        let was_start = self.phase == Phase::Start;
        self.phase = Phase::Judging { before, loss, ticks_left: JUDGED_AFTER_TICKS, was_start };
    }

    fn judge(&mut self, before: u64, loss_before: u32, loss: u32, was_start: bool) {
        let base = self.base.unwrap_or(0);
        let excess_before = loss_before.saturating_sub(base);
        let excess = loss.saturating_sub(base);
        self.phase = Phase::Steady;
        if excess * 2 <= excess_before {
            // Less loss at a lower rate: it was the rate. It was carried but for what was lost.
            self.knee = (u128::from(before) * u128::from(1_000_000 - excess_before.min(1_000_000)) / 1_000_000) as u64;
            self.failed_cuts = 0;
        } else if loss <= BASE_MOST {
            self.base = Some(loss.min(loss_before));
            self.rate = before.min(self.ceiling);
            self.failed_cuts = 0;
            if was_start {
                self.phase = Phase::Start;
            }
        } else {
            self.failed_cuts += 1;
        }
        if excess > cut_threshold(base) && loss > BASE_MOST {
            self.cut(excess, loss);
        }
    }

    fn rise(&mut self) {
        let step = match self.phase {
            Phase::Start => self.rate / 2,
            _ if self.rate < share(self.knee, NEAR_KNEE_PERCENT) => share(self.ceiling, STEP_PERCENT),
            _ => share(self.ceiling, STEP_PERCENT) / 4,
        };
        self.rate = (self.rate + step.max(1)).min(self.ceiling);
        // What once was full may not be any more: a knee that a rate got beyond is forgotten.
        if self.rate > share(self.knee, BEYOND_KNEE_PERCENT) {
            self.knee = u64::MAX;
        }
        if self.rate == self.ceiling {
            self.phase = Phase::Steady;
        }
    }
}

/// When the next packets are due, so that they leave evenly and in small bursts.
///
/// It counts time, not credit: each packet moves the time of the next one by what it takes at the rate. Who comes late may
/// catch up for a few milliseconds, and no more, so that a driver that slept does not burst.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pacer {
    next: Instant,
}

impl Pacer {
    /// The first packet may go now.
    pub fn new(now: Instant) -> Self {
        Pacer { next: now }
    }

    /// Whether a burst is due.
    pub fn is_due(&self, now: Instant) -> bool {
        self.next <= now
    }

    /// `bytes` on the wire go out now.
    pub fn spend(&mut self, now: Instant, bytes: u64, bytes_per_s: u64) {
        let latest = now.as_nanos().saturating_sub(CATCH_UP.as_nanos() as u64);
        let cost = u128::from(bytes) * 1_000_000_000 / u128::from(bytes_per_s.max(1));
        let cost = Duration::from_nanos(u64::try_from(cost).unwrap_or(u64::MAX));
        self.next = self.next.max(Instant::from_nanos(latest)) + cost;
    }

    /// When the next burst is due.
    pub fn next(&self) -> Instant {
        self.next
    }
}

/// So many percent of something.
pub(super) fn share(of: u64, percent: u32) -> u64 {
    u64::try_from(u128::from(of) * u128::from(percent) / 100).unwrap_or(u64::MAX)
}

/// Loss beyond base that is too much: half a per cent, and more where base itself is large and so swings.
const fn cut_threshold(base: u32) -> u32 {
    5_000 + base / 2
}

/// Loss beyond base that is as good as none.
const fn rise_threshold(base: u32) -> u32 {
    1_000 + base / 2
}

/// One megabit per second: below, a session is of no use.
const RATE_LEAST: u64 = 125_000;
/// The links' speed is known, or the sender's socket tells it; reports that confirm it take half a second. To begin with half of it cost a
/// session of ten seconds a third of a second; where a path carries less, a fifth more of the first half second is lost.
const START_PERCENT: u32 = 75;
/// A quarter of a second: about 8 % of the ceiling in a second.
const STEP_PERCENT: u32 = 2;
/// From here on to the knee rises are small.
const NEAR_KNEE_PERCENT: u32 = 95;
/// From here on there is no knee.
const BEYOND_KNEE_PERCENT: u32 = 105;
/// How far below what was carried a cut goes, so that queues empty.
const AFTER_CUT_PERCENT: u32 = 95;
/// Loss beyond base that is cut for at once (5 %).
const MUCH: u32 = 50_000;
/// Less must last for a second. Of a burst of 20 packets each second, a quarter of a per cent in all, some report tells as a per cent
/// of its time; cutting for that took a third of the rate away.
const LOSSY_TICKS: u32 = 4;
/// Reports come every 250 to 500 ms, ticks every 250 ms.
const JUDGED_AFTER_TICKS: u32 = 2;
/// Loss at the starting rate that is taken for the network's own at once (4 %).
const BASE_AT_START_MOST: u32 = 40_000;
/// Loss that is put up with at all (5 %): parity beyond that costs more than the swarm.
const BASE_MOST: u32 = 50_000;
/// Each takes three quarters of a second.
const FAILED_CUTS_MOST: u32 = 3;

/// How long a driver that comes late may catch up for: five of its ticks of a millisecond.
const CATCH_UP: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;

    const CEILING: u64 = 12_500_000;

    /// What is lost on a path that carries `capacity` and loses `own` ppm by itself.
    fn lost(rate: u64, capacity: u64, own: u32) -> u32 {
        let beyond = rate.saturating_sub(capacity) * 1_000_000 / rate;
        own + (beyond * u64::from(1_000_000 - own) / 1_000_000) as u32
    }

    /// Bytes sent in so many ticks, and the rate at their end. Each tick tells of the rate in the tick before.
    fn run(rate: &mut Rate, ticks: u32, capacity: u64, own: u32) -> u64 {
        let mut sent = 0;
        for _ in 0..ticks {
            let before = rate.bytes_per_s();
            sent += before.min(capacity) / 4;
            rate.update(lost(before, capacity, own));
        }
        sent
    }

    #[test]
    fn on_a_clean_path_the_ceiling_is_reached_in_half_a_second() {
        let mut rate = Rate::new(CEILING);
        assert_eq!(rate.bytes_per_s(), CEILING / 4 * 3);
        run(&mut rate, 2, u64::MAX, 0);
        assert_eq!(rate.bytes_per_s(), CEILING);
    }

    #[test]
    fn loss_that_is_not_of_the_rate_does_not_lower_it() {
        for own in [1_000, 10_000, 30_000, 45_000] {
            let mut rate = Rate::new(CEILING);
            run(&mut rate, 20, u64::MAX, own);
            assert!(rate.bytes_per_s() >= CEILING * 99 / 100, "{own} ppm: {} bytes/s", rate.bytes_per_s());
            // Loss that comes later is judged once.
            run(&mut rate, 20, u64::MAX, own / 2 + 20_000);
            assert!(rate.bytes_per_s() >= CEILING * 95 / 100, "{own} ppm, then more: {} bytes/s", rate.bytes_per_s());
        }
    }

    #[test]
    fn a_path_that_carries_less_is_filled_and_not_flooded() {
        for (percent, own) in [(80, 0), (60, 10_000), (30, 0), (10, 10_000)] {
            let (mut rate, capacity) = (Rate::new(CEILING), CEILING * percent / 100);
            run(&mut rate, 20, capacity, own);
            let sent = run(&mut rate, 80, capacity, own);
            assert!(sent >= capacity * 20 * 88 / 100, "{percent} %: {sent} of {} bytes", capacity * 20);
            assert!(rate.bytes_per_s() <= capacity * 108 / 100, "{percent} %: {} bytes/s", rate.bytes_per_s());
            assert!(!rate.is_hopeless());
        }
    }

    #[test]
    fn capacity_that_comes_back_is_found() {
        let mut rate = Rate::new(CEILING);
        run(&mut rate, 20, CEILING / 2, 0);
        run(&mut rate, 100, u64::MAX, 0);
        assert_eq!(rate.bytes_per_s(), CEILING);
    }

    #[test]
    fn a_burst_now_and_then_does_not_lower_the_rate() {
        let mut rate = Rate::new(CEILING);
        run(&mut rate, 4, u64::MAX, 0);
        for _ in 0..20 {
            run(&mut rate, 2, u64::MAX, 12_000);
            run(&mut rate, 2, u64::MAX, 0);
            assert_eq!(rate.bytes_per_s(), CEILING);
        }
    }

    #[test]
    fn loss_that_no_cut_helps_is_hopeless_soon() {
        let mut rate = Rate::new(CEILING);
        run(&mut rate, 12, u64::MAX, 200_000);
        assert!(rate.is_hopeless());
        assert!(rate.bytes_per_s() >= RATE_LEAST);
    }

    #[test]
    fn a_cut_for_the_sake_of_somebody_who_left_is_taken_back() {
        let mut rate = Rate::new(CEILING);
        run(&mut rate, 4, u64::MAX, 0);
        rate.update(900_000);
        assert!(rate.bytes_per_s() < CEILING);
        rate.forgive();
        assert_eq!(rate.bytes_per_s(), CEILING);
    }

    #[test]
    fn packets_leave_at_the_rate_and_a_late_driver_does_not_burst() {
        let mut pacer = Pacer::new(Instant::START);
        let (mut now, mut sent) = (Instant::START, 0u64);
        while now < Instant::from_millis(1000) {
            while pacer.is_due(now) {
                pacer.spend(now, 16 * 1472, 12_500_000);
                sent += 16 * 1472;
            }
            now = now + Duration::from_millis(1);
        }
        assert!((12_400_000..12_600_000).contains(&sent), "{sent} bytes in a second");
        let late = now + Duration::from_millis(500);
        let mut burst = 0;
        while pacer.is_due(late) {
            pacer.spend(late, 1472, 12_500_000);
            burst += 1472;
        }
        assert!(burst <= 12_500_000 / 1000 * 6, "{burst} bytes at once after a pause");
    }
}
