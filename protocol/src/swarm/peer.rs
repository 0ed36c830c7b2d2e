//! What one neighbour holds, whether it serves us, and how much it may be asked for at once.

use core::time::Duration;

use super::config::SwarmConfig;
use super::racks::Place;
use super::sharing::Told;
use crate::geometry::{CHUNK_LEN, Geometry, PieceIndex};
use crate::have::PieceSet;
use crate::pacing::Meter;
use crate::parts::Parts;
use crate::rng::Rng;
use crate::time::Instant;

/// Longest that a stalling peer is left alone.
const SNUB_MOST: Duration = Duration::from_secs(60);
/// Shortest and longest "ask again after" that is believed.
const BUSY_LEAST: Duration = Duration::from_millis(5);
const BUSY_MOST: Duration = Duration::from_secs(10);
/// How many requests in a row a peer may answer with advice or failure before it is left alone for longer and longer.
const FAILURES_FREE: u32 = 8;
/// How long a piece that a peer would rather not hand out is not asked of it again.
const DECLINED_FOR: Duration = Duration::from_millis(500);

/// A neighbour.
///
/// In a fleet of thousands hardly anything is in the processor's caches when it is needed. So what an announcement needs
/// stands first, beside the neighbour's id, then what every request needs.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Peer {
    /// Pieces that it says it holds.
    pub(super) have: PieceSet,
    /// Where it stands.
    pub(super) place: Place,
    /// Whether it was a seeder when it came, as a publisher is: such a one is spared, see `racks` and `asking`.
    pub(super) came_complete: bool,
    /// Whether it wants to be told our parts.
    pub(super) is_stuck: bool,
    /// Whether it said what it holds: before that nothing is asked.
    pub(super) has_answered: bool,
    /// How often in a row it stalled.
    stalls: u32,
    /// How many of its answers in a row brought nothing.
    failures: u32,
    /// Chunks that it says it holds of other pieces.
    pub(super) parts: Parts,
    busy_until: Instant,
    snubbed_until: Instant,
    /// When it last brought something, or began to be asked.
    progress_at: Instant,
    meter: Meter,
    /// Bytes exchanged with it, both ways, since neighbours were last reconsidered.
    pub(super) exchanged: u64,
    /// When it became a neighbour, or was last asked to be one.
    pub(super) joined_at: Instant,
    /// Pieces that it would not hand out, for now, if there are any.
    declined: Option<Box<PieceSet>>,
    declined_until: Instant,
    /// What it was told last of our parts, since it was told last what we hold.
    pub(super) told: Option<Told>,
    /// Pieces that it brings into this rack, and until when that counts.
    pub(super) imports: Vec<PieceIndex>,
    pub(super) imports_until: Instant,
}

impl Peer {
    /// A neighbour that has said nothing yet.
    pub(super) fn new(now: Instant, geometry: &Geometry) -> Self {
        Peer {
            have: PieceSet::empty(geometry),
            place: Place::default(),
            came_complete: false,
            is_stuck: false,
            has_answered: false,
            stalls: 0,
            failures: 0,
            parts: Parts::default(),
            busy_until: now,
            snubbed_until: now,
            progress_at: now,
            meter: Meter::default(),
            exchanged: 0,
            joined_at: now,
            declined: None,
            declined_until: now,
            told: None,
            imports: Vec::new(),
            imports_until: now,
        }
    }

    /// The first request after a pause is sent to it.
    pub(super) fn begin(&mut self, now: Instant) {
        self.meter.resume(now, self.progress_at);
        self.progress_at = now;
    }

    /// It sent a chunk.
    pub(super) fn progress(&mut self, now: Instant, bytes: u64) {
        self.progress_at = now;
        (self.stalls, self.failures) = (0, 0);
        self.exchanged += bytes;
        self.meter.add(now, bytes);
    }

    /// It stalled: it is left alone, twice as long each time.
    pub(super) fn snub(&mut self, now: Instant, config: &SwarmConfig) {
        self.snubbed_until = now + self.patience(config).saturating_mul(2).min(SNUB_MOST);
        self.stalls = self.stalls.saturating_add(1);
    }

    /// It broke off a request, or does not hold what it said: it is left alone for a moment, longer if that is all it
    /// does.
    pub(super) fn fail(&mut self, now: Instant, config: &SwarmConfig) {
        self.failures = self.failures.saturating_add(1);
        let rest = config.busy_backoff * (1 << self.failures.min(6));
        self.busy_until = self.busy_until.max(now + rest);
    }

    /// It advised to ask for something else. Says whether to do so: not if it does nothing but advise.
    pub(super) fn advise(&mut self, now: Instant, config: &SwarmConfig) -> bool {
        self.failures = self.failures.saturating_add(1);
        if self.failures > FAILURES_FREE {
            self.busy_until = self.busy_until.max(now + config.busy_backoff);
        }
        self.failures <= FAILURES_FREE
    }

    /// It said "busy". A little is added at random, so that all who were refused do not come back at once.
    pub(super) fn busy(&mut self, now: Instant, retry_after: Duration, config: &SwarmConfig, rng: &mut Rng) {
        let retry_after = if retry_after.is_zero() { config.busy_backoff } else { retry_after };
        let retry_after = retry_after.clamp(BUSY_LEAST, BUSY_MOST);
        let jitter = retry_after * rng.below(256) / 1024;
        self.busy_until = self.busy_until.max(now + retry_after + jitter);
    }

    /// It would rather not hand out this piece.
    pub(super) fn decline(&mut self, now: Instant, piece: PieceIndex, geometry: &Geometry) {
        self.declined.get_or_insert_with(|| Box::new(PieceSet::empty(geometry))).insert(piece);
        self.declined_until = now + DECLINED_FOR;
    }

    /// Forgets what it would rather not hand out, when that was long ago. Says whether there is nothing of that now.
    pub(super) fn forget_declined(&mut self, now: Instant) -> bool {
        if self.declined_until <= now {
            self.declined = None;
        }
        self.declined.is_none()
    }

    /// Pieces that it is not asked for now, if there are any.
    pub(super) fn declined(&self) -> Option<&PieceSet> {
        self.declined.as_deref()
    }

    /// Whether it may be asked now.
    pub(super) fn is_askable(&self, now: Instant) -> bool {
        self.has_answered && self.askable_at() <= now
    }

    /// From when on it may be asked.
    pub(super) fn askable_at(&self) -> Instant {
        self.busy_until.max(self.snubbed_until)
    }

    /// Whether it holds every piece.
    pub(super) fn is_seeder(&self) -> bool {
        self.has_answered && self.have.is_full()
    }

    /// Whether it holds every piece and did so when it came: what others can give it need not, since what only it can give
    /// all wait for. A leecher that became complete has nothing better to do than to give.
    pub(super) fn is_publisher(&self) -> bool {
        self.came_complete && self.is_seeder()
    }

    /// Its rate to us while asked, in bytes per second; zero if not known.
    pub(super) fn rate(&self) -> u64 {
        self.meter.rate()
    }

    /// Bytes that may be on their way from it.
    pub(super) fn window(&self, config: &SwarmConfig) -> u64 {
        if self.stalls > 0 {
            // Enough to see whether it works again, and not much to lose.
            return config.request_len_least;
        }
        let by_time = u128::from(self.rate()) * config.in_flight_time.as_nanos() / 1_000_000_000;
        u64::try_from(by_time).unwrap_or(u64::MAX).min(config.in_flight_most).max(config.in_flight_least)
    }

    /// How much to ask of it at once: half of its window, so that the next request is under way when one ends.
    pub(super) fn request_len(&self, config: &SwarmConfig) -> u64 {
        (self.window(config) / 2).max(config.request_len_least).min(config.request_len_most)
    }

    /// How long it may be silent with requests open: a slow one that is known to be slow may take its time.
    pub(super) fn patience(&self, config: &SwarmConfig) -> Duration {
        let chunk_time = match self.rate() {
            0 => Duration::ZERO,
            rate => Duration::from_nanos(4 * u64::from(CHUNK_LEN) * 1_000_000_000 / rate),
        };
        config.no_progress.max(chunk_time).saturating_mul(1 << self.stalls.min(4)).min(SNUB_MOST)
    }

    /// How long it has been silent.
    pub(super) fn silence(&self, now: Instant) -> Duration {
        now.since(self.progress_at)
    }

    /// When its patience ends, if requests are open.
    pub(super) fn stalls_at(&self, config: &SwarmConfig) -> Instant {
        self.progress_at + self.patience(config)
    }
}
