//! How many parity symbols a block gets: the least with which few enough blocks fail at the loss that is measured.
//!
//! With independent loss `p`, a block of `k + h` symbols fails at a receiver with the chance `P[Bin(k + h, p) > h]`. Few
//! failures are fine, because repair and the swarm are there; each parity symbol more costs every block, failed or not. So the
//! target is per cents, not millionths.
//!
//! All in whole numbers, 2^-40 being the unit of a chance, so that every machine decides the same.

use super::fec::PARITY_MOST;

/// One, as a chance.
const ONE: u128 = 1 << 40;

/// The least `h`, up to `most` (itself at most [`PARITY_MOST`]), with which at most `failures_ppm` of blocks of `k` source symbols
/// fail at a loss of `loss_ppm`, both in millionths.
pub fn least_parity(k: u8, loss_ppm: u32, failures_ppm: u32, most: u8) -> u8 {
    let most = most.min(PARITY_MOST);
    (0..most).find(|&h| failures(k, h, loss_ppm) <= u128::from(failures_ppm)).unwrap_or(most)
}

/// The chance that more than `h` of `k + h` symbols are lost, in millionths, rounded up.
fn failures(k: u8, h: u8, loss_ppm: u32) -> u128 {
    let symbols = u128::from(k) + u128::from(h);
    let loss = u128::from(loss_ppm.min(1_000_000)) * ONE / 1_000_000;
    let kept = ONE - loss;
    if kept == 0 {
        return 1_000_000;
    }
    // P[i lost] by recursion: from i to i + 1 it changes by (n - i) / (i + 1) x loss / kept.
    let mut exactly = (0..symbols).fold(ONE, |chance, _| chance * kept / ONE);
    let mut at_most = exactly;
    for lost in 0..u128::from(h) {
        exactly = exactly * (symbols - lost) / (lost + 1) * loss / kept;
        at_most += exactly;
    }
    (ONE.saturating_sub(at_most) * 1_000_000).div_ceil(ONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values summed up from exact binomial coefficients.
    #[test]
    fn failures_are_those_of_the_binomial_distribution() {
        let near = |found: u128, expected: u128| found.abs_diff(expected) <= expected / 100 + 1;
        assert!(near(failures(64, 0, 1_000), 62_025), "{}", failures(64, 0, 1_000));
        assert!(near(failures(64, 2, 10_000), 28_698), "{}", failures(64, 2, 10_000));
        assert!(near(failures(128, 8, 20_000), 1_759), "{}", failures(128, 8, 20_000));
    }

    #[test]
    fn parity_grows_with_loss_up_to_its_bound() {
        let parity = [0, 100, 1_000, 10_000, 30_000, 100_000].map(|loss| least_parity(48, loss, 20_000, 8));
        assert_eq!(parity, [0, 0, 1, 2, 4, 8]);
        assert!(parity.is_sorted());
        assert_eq!(least_parity(48, 1_000_000, 20_000, PARITY_MOST), PARITY_MOST);
    }
}
