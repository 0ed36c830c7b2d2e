//! Max-min fair rates: nobody can get more without somebody who has no more getting less.
//!
//! Progressive filling: the link with the least to give each of its flows is full; its flows get that; the rest is shared
//! by the others; and so on. Rates are whole bytes per second, rounded down, so that no link is ever above capacity. A flow
//! of weight 2 counts as two flows.
//!
//! This is the oracle: it is given everything and keeps nothing. `filling` does the same for what changed only.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::net::{LinkId, Net, Slot};

/// The rate of each open flow, in bytes per second.
pub(super) fn solve(net: &Net) -> Vec<(Slot, u64)> {
    let capacities: Vec<u64> = net.links.iter().map(|link| link.capacity).collect();
    let (slots, paths): (Vec<Slot>, Vec<(&[LinkId], u32)>) =
        net.open_flows().map(|(slot, flow)| (slot, (flow.path(), flow.weight))).unzip();
    slots.into_iter().zip(max_min(&capacities, &paths)).collect()
}

/// The rate of each flow, given what each link can carry, which links each flow runs over and its weight.
pub(crate) fn max_min(capacities: &[u64], flows: &[(&[LinkId], u32)]) -> Vec<u64> {
    let mut links: Vec<Filling> =
        capacities.iter().map(|&capacity| Filling { left: capacity, flows: Vec::new(), open: 0 }).collect();
    for (flow, (path, weight)) in flows.iter().enumerate() {
        for &link in *path {
            links[link as usize].flows.push(flow);
            links[link as usize].open += u64::from(*weight);
        }
    }
    let used = (0..).zip(&links).filter(|(_, link)| link.open > 0);
    let mut next: BinaryHeap<Reverse<(u64, LinkId)>> = used.map(|(at, link)| Reverse((link.share(), at))).collect();

    let mut rates: Vec<Option<u64>> = vec![None; flows.len()];
    while let Some(Reverse((share, at))) = next.pop() {
        let link = &links[at as usize];
        if link.open == 0 {
            continue;
        }
        // Shares only grow while others are served, so an outdated entry is too low and goes back to its place.
        if link.share() > share {
            next.push(Reverse((link.share(), at)));
            continue;
        }
        for flow in std::mem::take(&mut links[at as usize].flows) {
            if rates[flow].is_none() {
                let (path, weight) = flows[flow];
                let rate = share * u64::from(weight);
                rates[flow] = Some(rate);
                for &link in path {
                    links[link as usize].left -= rate;
                    links[link as usize].open -= u64::from(weight);
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
    use super::*;

    #[test]
    fn the_rest_of_a_full_link_goes_to_others() {
        // Two flows over link 0 (100), one of which also over link 1 (20); a third over links 1 and 2.
        let rates = max_min(&[100, 20, 1000], &[(&[0, 1], 1), (&[0, 2], 1), (&[1, 2], 1)]);
        assert_eq!(rates, [10, 90, 10]);
    }

    #[test]
    fn who_weighs_more_gets_more_of_a_full_link() {
        let rates = max_min(&[90, 20], &[(&[0], 1), (&[0], 2), (&[0, 1], 5)]);
        assert_eq!(rates, [23, 46, 20]);
    }
}
