//! Rates on given time: a token bucket that limits one, and a meter that measures one.
//!
//! Both count in whole bytes and nanoseconds, with 128 bits in between, so a limit of many gigabytes per second neither
//! overflows nor drifts, and two runs agree to the bit.

use core::time::Duration;

use crate::time::Instant;

/// How far ahead of its rate a bucket may run: short, so that a limit holds within any human time.
const GRAIN: Duration = Duration::from_millis(10);
/// Over how long a meter collects one sample.
const SAMPLE: Duration = Duration::from_millis(100);
/// After how many samples a meter has forgotten what was before.
const MEMORY: u64 = 4;

/// Limits bytes per second, or nothing if it has no rate.
///
/// Spending is allowed while the debt is at most one grain, and may then overdraw: who spends a mebibyte at a mebibyte
/// per second waits about a second before the next. So a limit binds on average over whatever is spent at once.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    rate: Option<u64>,
    paid_until: Instant,
}

impl TokenBucket {
    /// A bucket that lets `rate` bytes per second through, or everything.
    pub fn new(rate: Option<u64>) -> Self {
        TokenBucket { rate, paid_until: Instant::START }
    }

    /// Changes the rate and forgives what is owed.
    pub fn set_rate(&mut self, now: Instant, rate: Option<u64>) {
        self.rate = rate;
        self.paid_until = now;
    }

    /// Takes `bytes`, also if that overdraws.
    pub fn spend(&mut self, now: Instant, bytes: u64) {
        if let Some(cost) = self.cost(bytes) {
            self.paid_until = self.paid_until.max(now) + cost;
        }
    }

    /// Gives back `bytes` that were taken and not used.
    pub fn refund(&mut self, bytes: u64) {
        if let Some(cost) = self.cost(bytes) {
            self.paid_until = Instant::from_nanos(self.paid_until.as_nanos().saturating_sub(cost.as_nanos() as u64));
        }
    }

    /// The rate, in bytes per second.
    pub fn rate(&self) -> Option<u64> {
        self.rate
    }

    /// Whether something may be spent.
    pub fn is_ready(&self, now: Instant) -> bool {
        self.ready_at() <= now
    }

    /// From when on something may be spent.
    pub fn ready_at(&self) -> Instant {
        match self.rate {
            Some(_) => Instant::from_nanos(self.paid_until.as_nanos().saturating_sub(GRAIN.as_nanos() as u64)),
            None => Instant::START,
        }
    }

    /// How long `bytes` take. A rate of nothing is taken as a byte per second, so that time stays finite.
    fn cost(&self, bytes: u64) -> Option<Duration> {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.rate?.max(1));
        Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }
}

/// Measures bytes per second as a moving average.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    began: Instant,
    bytes: u64,
    rate: u64,
}

impl Meter {
    /// Counts `bytes` that came now.
    pub fn add(&mut self, now: Instant, bytes: u64) {
        self.bytes += bytes;
        self.roll(now);
    }

    /// The flow goes on after a pause by intention that began at `idle_since`: that time does not count.
    pub fn resume(&mut self, now: Instant, idle_since: Instant) {
        self.began = if self.bytes == 0 { now } else { self.began + now.since(idle_since) };
    }

    /// Ends the sample if it is long enough.
    pub fn roll(&mut self, now: Instant) {
        let elapsed = now.since(self.began);
        // The first sample may be short: a rough rate soon is better than none.
        let least = if self.rate == 0 { SAMPLE / 4 } else { SAMPLE };
        if elapsed < least {
            return;
        }
        let nanos = elapsed.as_nanos();
        let sample = u64::try_from(u128::from(self.bytes) * 1_000_000_000 / nanos).unwrap_or(u64::MAX);
        let samples = u64::try_from(nanos / SAMPLE.as_nanos()).unwrap_or(u64::MAX).clamp(1, MEMORY);
        let (old, new) = if self.rate == 0 { (0, 1) } else { (MEMORY - samples, samples) };
        let mixed =
            (u128::from(self.rate) * u128::from(old) + u128::from(sample) * u128::from(new)) / u128::from(old + new);
        self.rate = mixed as u64;
        self.began = now;
        self.bytes = 0;
    }

    /// Bytes per second, as of the last sample.
    pub fn rate(&self) -> u64 {
        self.rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_lets_its_rate_through_and_no_more() {
        let mut bucket = TokenBucket::new(Some(1_000_000));
        let mut now = Instant::START;
        let mut sent = 0;
        while now < Instant::from_millis(5000) {
            now = now.max(bucket.ready_at());
            bucket.spend(now, 64 * 1024);
            sent += 64 * 1024;
        }
        assert!((4_900_000..5_200_000).contains(&sent), "{sent} bytes in 5 s");
    }

    #[test]
    fn a_bucket_saves_nothing_up_while_idle() {
        let mut bucket = TokenBucket::new(Some(1_000_000));
        let now = Instant::from_millis(60_000);
        bucket.spend(now, 1_000_000);
        assert!(!bucket.is_ready(now + Duration::from_millis(900)));
        bucket.refund(1_000_000);
        assert!(bucket.is_ready(now));
    }

    #[test]
    fn a_bucket_without_a_rate_is_always_ready() {
        let mut bucket = TokenBucket::new(None);
        bucket.spend(Instant::START, u64::MAX);
        assert!(bucket.is_ready(Instant::START));
    }

    #[test]
    fn rates_beyond_32_bits_stay_exact() {
        let mut bucket = TokenBucket::new(Some(50 << 30));
        bucket.spend(Instant::START, 50 << 30);
        assert_eq!(bucket.ready_at(), Instant::from_millis(990));
    }

    #[test]
    fn a_meter_does_not_count_pauses() {
        let mut meter = Meter::default();
        let mut now = Instant::from_millis(60_000);
        for _ in 0..100 {
            let idle_since = now;
            now = now + Duration::from_millis(200);
            meter.resume(now, idle_since);
            now = now + Duration::from_millis(10);
            meter.add(now, 10_000);
        }
        assert!((900_000..1_100_000).contains(&meter.rate()), "{}", meter.rate());
    }

    #[test]
    fn a_meter_follows_a_flow_and_forgets_an_old_one() {
        let mut meter = Meter::default();
        let mut now = Instant::START;
        for _ in 0..100 {
            now = now + Duration::from_millis(10);
            meter.add(now, 10_000);
        }
        assert!((900_000..1_100_000).contains(&meter.rate()), "{}", meter.rate());
        meter.roll(now + Duration::from_secs(2));
        assert!(meter.rate() < 100_000, "{}", meter.rate());
    }
}
