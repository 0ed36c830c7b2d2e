//! Max-min fair rates: nobody can get more without somebody who has no more getting less.
//!
//! Progressive filling: the link with the least to give each of its flows is full; its flows get that; the rest is shared
//! by the others; and so on. Rates are whole bytes per second, rounded down, so that no link is ever above capacity.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A link, by its number.
pub(crate) type LinkId = usize;

/// The rate of each flow, given what each link can carry and which links each flow runs over, in bytes per second.
pub(crate) fn max_min(capacities: &[u64], paths: &[&[LinkId]]) -> Vec<u64> {
    let mut links: Vec<Filling> =
        capacities.iter().map(|&capacity| Filling { left: capacity, flows: Vec::new(), open: 0 }).collect();
    for (flow, path) in paths.iter().enumerate() {
        for &link in *path {
            links[link].flows.push(flow);
            links[link].open += 1;
        }
    }
    let used = links.iter().enumerate().filter(|(_, link)| link.open > 0);
    let mut next: BinaryHeap<Reverse<(u64, LinkId)>> = used.map(|(at, link)| Reverse((link.share(), at))).collect();

    let mut rates: Vec<Option<u64>> = vec![None; paths.len()];
    while let Some(Reverse((share, at))) = next.pop() {
        if links[at].open == 0 {
            continue;
        }
        // Shares only grow while others are served, so an outdated entry is too low and goes back to its place.
        if links[at].share() > share {
            next.push(Reverse((links[at].share(), at)));
            continue;
        }
        for flow in std::mem::take(&mut links[at].flows) {
            if rates[flow].is_none() {
                rates[flow] = Some(share);
                for &link in paths[flow] {
                    links[link].left -= share;
                    links[link].open -= 1;
                }
            }
        }
    }
    rates.into_iter().map(|rate| rate.expect("every flow runs over a link that gets full")).collect()
}

#[derive(Debug)]
struct Filling {
    left: u64,
    flows: Vec<usize>,
    open: u64,
}

impl Filling {
    fn share(&self) -> u64 {
        self.left / self.open
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_rest_of_a_full_link_goes_to_others() {
        // Two flows over link 0 (100), one of which also over link 1 (20); a third over links 1 and 2.
        let rates = max_min(&[100, 20, 1000], &[&[0, 1], &[0, 2], &[1, 2]]);
        assert_eq!(rates, [10, 90, 10]);
    }

    proptest! {
        #[test]
        fn rates_are_fair_and_within_capacity(
            capacities in prop::collection::vec(1_000..1_000_000u64, 6),
            paths in prop::collection::vec((0..3usize, 3..6usize), 1..30),
        ) {
            let paths: Vec<[LinkId; 2]> = paths.into_iter().map(|(up, down)| [up, down]).collect();
            let rates = max_min(&capacities, &paths.iter().map(|path| &path[..]).collect::<Vec<_>>());
            let over = |link: LinkId| paths.iter().zip(&rates).filter(move |(path, _)| path.contains(&link));
            let load = |link| over(link).map(|(_, rate)| rate).sum::<u64>();
            for (link, &capacity) in capacities.iter().enumerate() {
                prop_assert!(load(link) <= capacity);
            }
            // The certificate: each flow has a link that is full (up to rounding) where nobody has more.
            for (path, &rate) in paths.iter().zip(&rates) {
                let bottleneck = path.iter().any(|&link| {
                    let slack = paths.len() as u64;
                    let is_full = load(link) + slack * slack >= capacities[link];
                    is_full && over(link).all(|(_, &other)| other <= rate + slack)
                });
                prop_assert!(bottleneck, "a flow of {rate} could have more");
            }
        }
    }
}
