//! Loss of packets, as what it leaves of a rate.
//!
//! Flows have no packets here, so loss is a factor on what a host's links carry. For one sender and one receiver it was
//! measured: one QUIC flow with CUBIC between hosts of 100 Mbit/s took 1.053 of the least time without loss, 1.11 with 1 %,
//! 1.60 with 3 % of packets lost. In between it is a straight line; beyond, the rate falls with the root of the loss
//! (Mathis, Semke, Mahdavi and Ott 1997). Other rates and round trips will differ: a long path loses more.
//!
//! What slows a sender is not a lost packet but a round trip with losses (RFC 5348 calls it a loss event), so bursts of
//! the same mean loss slow it less often; what was lost is sent again all the same.

/// Loss on a host's links, both ways.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Loss {
    /// Share of packets that are lost, from 0 to below 1.
    pub share: f64,
    /// How many packets are lost in a row, in the mean; 1 is independent loss.
    pub burst: f64,
}

/// Share of packets lost, and what was left of the rate without loss.
const MEASURED: [(f64, f64); 3] = [(0.0, 1.0), (0.01, 1.053 / 1.11), (0.03, 1.053 / 1.60)];
/// What is lost so often in a row is counted no more.
const ROUNDS_MOST: u32 = 1000;

impl Loss {
    /// No packet is lost.
    pub const NONE: Loss = Loss { share: 0.0, burst: 1.0 };

    /// Share of a link's rate without loss that one sender and one receiver still reach.
    pub fn unicast_factor(&self) -> f64 {
        let events = self.share / self.burst;
        single_losses_factor(events) * (1.0 - self.share) / (1.0 - events)
    }
}

fn single_losses_factor(share: f64) -> f64 {
    for pair in MEASURED.windows(2) {
        let ((from, high), (to, low)) = (pair[0], pair[1]);
        if share <= to {
            return high + (low - high) * (share - from) / (to - from);
        }
    }
    let (last, factor) = MEASURED[MEASURED.len() - 1];
    factor * (last / share).sqrt()
}

/// How often a packet must be sent in the mean until each receiver has it, when each loses it by itself:
/// `Σ (1 - Π (1 - pᵢᵏ))` over k from 0 (Nonnenmacher, Biersack and Towsley 1998, there for equal losses).
pub fn transmissions(losses: impl Iterator<Item = Loss>) -> f64 {
    // Equal losses are counted, so that ten thousand receivers cost no more than one.
    let mut shares: Vec<f64> = losses.map(|loss| loss.share).filter(|&share| share > 0.0).collect();
    shares.sort_by(f64::total_cmp);
    let mut counted: Vec<(f64, u32)> = Vec::new();
    for share in shares {
        match counted.last_mut() {
            Some((same, count)) if *same == share => *count += 1,
            _ => counted.push((share, 1)),
        }
    }
    let mut again = counted.clone();
    let mut sum = 1.0;
    for _ in 0..ROUNDS_MOST {
        let all_have_it: f64 = again.iter().map(|&(lost, count)| power(1.0 - lost, count)).product();
        sum += 1.0 - all_have_it;
        if all_have_it > 1.0 - 1e-9 {
            break;
        }
        for ((lost, _), (share, _)) in again.iter_mut().zip(&counted) {
            *lost *= share;
        }
    }
    sum
}

/// By multiplying alone, so that it is the same on every machine.
fn power(mut base: f64, mut exponent: u32) -> f64 {
    let mut result = 1.0;
    while exponent > 0 {
        if exponent % 2 == 1 {
            result *= base;
        }
        base *= base;
        exponent /= 2;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn factor(share: f64, burst: f64) -> f64 {
        Loss { share, burst }.unicast_factor()
    }

    #[test]
    fn a_sender_is_as_slow_as_was_measured() {
        assert_eq!(Loss::NONE.unicast_factor(), 1.0);
        assert!((factor(0.01, 1.0) - 0.949).abs() < 0.001);
        assert!((factor(0.03, 1.0) - 0.658).abs() < 0.001);
        assert!((factor(0.12, 1.0) - 0.658 / 2.0).abs() < 0.001, "four times the loss, half of the rate");
    }

    #[test]
    fn bursts_slow_less_than_single_losses_but_not_less_than_the_loss_itself() {
        assert!(factor(0.03, 10.0) > factor(0.03, 1.0));
        assert!(factor(0.03, 1e6) < 0.97 + 1e-6);
    }

    #[test]
    fn a_group_sends_again_what_any_of_it_lost() {
        let group = |count: usize, share: f64| transmissions(std::iter::repeat_n(Loss { share, burst: 1.0 }, count));
        assert_eq!(group(7, 0.0), 1.0);
        // One receiver: 1 / (1 - p).
        assert!((group(1, 0.5) - 2.0).abs() < 1e-6);
        // Seven with 1 %: 1 + (1 - 0.99⁷) + (1 - 0.9999⁷) + …
        assert!((group(7, 0.01) - (1.0 + 0.067_93 + 0.000_7)).abs() < 1e-4);
        assert!((group(10_000, 0.01) - (1.0 + 1.0 + 0.632_1 + 0.010_0)).abs() < 1e-3);
        let mixed = transmissions([Loss { share: 0.1, burst: 1.0 }, Loss { share: 0.0, burst: 1.0 }].into_iter());
        assert!((mixed - 1.0 / 0.9).abs() < 1e-6);
    }
}
