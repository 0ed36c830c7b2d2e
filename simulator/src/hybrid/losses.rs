//! Which packets of many get lost, without a throw of dice for each.
//!
//! Packets come through in runs and get lost in runs; the lengths of both are drawn from geometric distributions (Gilbert's
//! channel). With a mean of one lost packet in a row every packet is lost by itself, exactly as if a die were thrown for it.

use std::sync::Arc;

use drover_protocol::rng::Rng;

use crate::loss::Loss;

/// One link.
#[derive(Clone, Debug)]
pub(super) struct Losses {
    /// How long runs are; `None` if nothing is lost.
    lengths: Option<Arc<[Lengths; 2]>>,
    /// Whether the run is one of packets that get lost, and how many packets of it are left.
    is_losing: bool,
    left: u32,
}

/// A geometric distribution: the chance that a run is longer than 0, 1, 2 … packets, in units of 2^-63.
#[derive(Clone, Debug)]
struct Lengths(Vec<u64>);

impl Losses {
    /// A link that loses as `loss` says.
    pub(super) fn new(loss: Loss) -> Self {
        let lengths = (loss.share > 0.0).then(|| {
            let goes_on = 1.0 - 1.0 / loss.burst;
            let mean_between = loss.burst * (1.0 - loss.share) / loss.share;
            Arc::new([Lengths::new(mean_between / (mean_between + 1.0)), Lengths::new(goes_on)])
        });
        Losses { lengths, is_losing: true, left: 0 }
    }

    /// Adds the places of those of the next `packets` packets that get lost, in rising order.
    pub(super) fn draw(&mut self, rng: &mut Rng, packets: u32, lost: &mut Vec<u32>) {
        let Some(lengths) = self.lengths.clone() else { return };
        let mut at = 0;
        while at < packets {
            if self.left == 0 {
                self.is_losing = !self.is_losing;
                // At least one is lost in a row; none may come through between two rows.
                self.left = lengths[usize::from(self.is_losing)].draw(rng) + u32::from(self.is_losing);
                continue;
            }
            let end = (at + self.left).min(packets);
            if self.is_losing {
                lost.extend(at..end);
            }
            self.left -= end - at;
            at = end;
        }
    }
}

impl Lengths {
    /// After each packet the run goes on with this chance. By multiplying alone, so that it is the same on every machine.
    fn new(goes_on: f64) -> Self {
        let chances = core::iter::successors(Some(goes_on), |chance| Some(chance * goes_on));
        Lengths(chances.take(LENGTHS).map(|chance| (chance * (1u64 << 63) as f64) as u64).collect())
    }

    fn draw(&self, rng: &mut Rng) -> u32 {
        let mut len = 0;
        loop {
            let drawn = rng.next_u64() >> 1;
            let more = self.0.partition_point(|&longer| longer > drawn);
            len += more as u32;
            // A run that is longer than the table goes on as if it began.
            if more < LENGTHS || len > LENGTH_MOST {
                return len;
            }
        }
    }
}

/// Longer ones are put together.
const LENGTHS: usize = 512;
/// A run of so many packets is as long as any.
const LENGTH_MOST: u32 = 1 << 30;

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(share: f64, burst: f64) -> (f64, f64) {
        let (mut losses, mut rng, mut lost) = (Losses::new(Loss { share, burst }), Rng::seeded(1), Vec::new());
        let (mut count, mut rows) = (0, 0);
        for _ in 0..1000 {
            lost.clear();
            losses.draw(&mut rng, 800, &mut lost);
            assert!(lost.is_sorted() && lost.iter().all(|&place| place < 800));
            count += lost.len();
            rows += lost.chunk_by(|one, next| one + 1 == *next).count();
        }
        (count as f64 / 800_000.0, count as f64 / rows as f64)
    }

    #[test]
    fn as_many_are_lost_and_as_many_in_a_row_as_was_said() {
        for (share, burst) in [(0.001, 1.0), (0.01, 1.0), (0.03, 1.0), (0.03, 20.0)] {
            let (lost, in_a_row) = drawn(share, burst);
            assert!((lost / share - 1.0).abs() < 0.15, "{lost} instead of {share}");
            // Two rows may touch, and each half of one may be in another run.
            let expected = if burst > 1.0 { burst } else { 1.0 / (1.0 - share) };
            assert!((in_a_row / expected - 1.0).abs() < 0.1, "{in_a_row} in a row instead of {expected}");
        }
        assert_eq!(drawn(0.0, 1.0).0, 0.0);
    }
}
