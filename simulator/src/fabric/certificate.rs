//! What must hold of rates, whoever found them: links are not above their capacity, and each flow has a bottleneck.
//!
//! A flow's bottleneck is a link that is full and where nobody has more, by weight (Bertsekas and Gallager, Data Networks,
//! 1992, section 6.5): then nobody can get more without somebody who has no more getting less.

use super::net::{Flow, Net};

/// Checks the rates of all flows, each up to the rounding of whole bytes.
pub(super) fn check(net: &Net) -> Result<(), String> {
    let mut highest = vec![0; net.links.len()];
    for (number, link) in net.links.iter().enumerate() {
        let flows = || link.flows.iter().map(|&slot| &net.flows[slot as usize]);
        let load: u64 = flows().map(|flow| flow.rate).sum();
        if load != link.load || load > link.capacity {
            return Err(format!("link {number} of {} B/s carries {load}, counted as {}", link.capacity, link.load));
        }
        highest[number] = flows().map(level).max().unwrap_or(0);
    }
    for (_, flow) in net.open_flows() {
        let has_bottleneck = flow.path().iter().any(|&number| {
            let link = &net.links[number as usize];
            // Each flow of a link was rounded down once, and what that left was rounded again.
            let weights: u64 = link.flows.iter().map(|&slot| u64::from(net.flows[slot as usize].weight)).sum();
            let is_full = link.capacity - link.load <= weights * (weights + 1);
            is_full && level(flow) + weights + 1 >= highest[number as usize]
        });
        if !has_bottleneck {
            return Err(format!("a flow of {} B/s over links {:?} could have more", flow.rate, flow.path()));
        }
    }
    Ok(())
}

fn level(flow: &Flow) -> u64 {
    flow.rate / u64::from(flow.weight)
}
