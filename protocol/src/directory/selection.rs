//! Which peers to hand out: random ones, mostly of the asker's rack, with a seeder among them.
//!
//! The peers of a swarm lie in vectors, one for each rack and [`Kind`], and a sum tree over the racks turns "the n-th
//! peer outside of my rack" into a peer in a few steps. So a pick is exactly uniform, never draws twice for a peer that
//! does not fit, and costs nothing in the number of peers: a swarm of 10,000 announces a thousand times a second.

use std::collections::BTreeMap;

use crate::id::PeerId;
use crate::rng::Rng;

/// Whether a peer can give everything or wants something.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Kind {
    Seeder,
    Leecher,
}

/// Where a peer lies in a [`Pool`], until the pool says otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    rack: usize,
    kind: Kind,
    at: usize,
}

/// The peers of one swarm that can be handed out.
#[derive(Debug, Default)]
pub(super) struct Pool {
    racks: Vec<Rack>,
    by_label: BTreeMap<Option<String>, usize>,
    /// Racks without peers, to be used again.
    vacant: Vec<usize>,
    seeders: SumTree,
    leechers: SumTree,
}

#[derive(Debug, Default)]
struct Rack {
    label: Option<String>,
    seeders: Vec<PeerId>,
    leechers: Vec<PeerId>,
}

/// Who asks, and for how many.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker<'a> {
    /// Where it lies itself, if it is in the pool: never handed out to itself.
    pub(super) place: Option<Place>,
    /// A seeder is handed leechers only.
    pub(super) kind: Kind,
    /// Its rack; whoever names none is near nobody.
    pub(super) rack: Option<&'a str>,
    /// How many peers it gets, if there are as many.
    pub(super) want: usize,
    /// Least share of them that is from other racks, in percent.
    pub(super) elsewhere_percent: usize,
}

impl Pool {
    /// Adds a peer that is not in it.
    pub(super) fn insert(&mut self, peer: PeerId, rack: Option<&str>, kind: Kind) -> Place {
        let label = rack.map(str::to_owned);
        let rack = self.by_label.get(&label).copied().unwrap_or_else(|| self.add_rack(label));
        self.sums_mut(kind).add(rack, 1);
        let peers = self.racks[rack].peers_mut(kind);
        peers.push(peer);
        Place { rack, kind, at: peers.len() - 1 }
    }

    /// Takes out the peer that lies at `place`. If another lies there now, that one is returned.
    pub(super) fn remove(&mut self, place: Place) -> Option<PeerId> {
        let Place { rack, kind, at } = place;
        self.sums_mut(kind).add(rack, -1);
        let peers = self.racks[rack].peers_mut(kind);
        peers.swap_remove(at);
        let moved = peers.get(at).copied();
        if self.racks[rack].seeders.is_empty() && self.racks[rack].leechers.is_empty() {
            self.by_label.remove(&self.racks[rack].label.take());
            self.vacant.push(rack);
        }
        moved
    }

    /// Peers for `asker`, in random order, each at most once.
    pub(super) fn pick(&self, rng: &mut Rng, asker: Asker<'_>) -> Vec<PeerId> {
        let near_rack = asker.rack.and_then(|label| self.by_label.get(&Some(label.to_owned())).copied());
        let near = Candidates { pool: self, side: Side::In(near_rack), asker };
        let far = Candidates { pool: self, side: Side::OutOf(near_rack), asker };

        let take = asker.want.min(near.count() + far.count());
        let far_least = (take * asker.elsewhere_percent).div_ceil(100).min(far.count());
        let near_take = near.count().min(take - far_least);
        let mut near_ranks = sample(rng, near.count(), near_take);
        let mut far_ranks = sample(rng, far.count(), take - near_take);

        // Seeders have the lowest ranks.
        let has_seeder =
            near_ranks.iter().any(|&rank| rank < near.seeders()) || far_ranks.iter().any(|&rank| rank < far.seeders());
        if !has_seeder && take > 0 {
            if near.seeders() > 0 {
                // With no peer of its rack to give way, one of elsewhere does.
                if near_ranks.pop().is_none() {
                    far_ranks.pop();
                }
                near_ranks.push(rng.below(near.seeders() as u32) as usize);
            } else if far.seeders() > 0 {
                if far_ranks.pop().is_none() {
                    near_ranks.pop();
                }
                far_ranks.push(rng.below(far.seeders() as u32) as usize);
            }
        }
        let near_peers = near_ranks.into_iter().map(|rank| near.nth(rank));
        let mut peers: Vec<PeerId> = near_peers.chain(far_ranks.into_iter().map(|rank| far.nth(rank))).collect();
        rng.shuffle(&mut peers);
        peers
    }

    fn add_rack(&mut self, label: Option<String>) -> usize {
        let rack = self.vacant.pop().unwrap_or_else(|| {
            self.racks.push(Rack::default());
            self.seeders.push();
            self.leechers.push();
            self.racks.len() - 1
        });
        self.racks[rack].label.clone_from(&label);
        self.by_label.insert(label, rack);
        rack
    }

    fn sums(&self, kind: Kind) -> &SumTree {
        match kind {
            Kind::Seeder => &self.seeders,
            Kind::Leecher => &self.leechers,
        }
    }

    fn sums_mut(&mut self, kind: Kind) -> &mut SumTree {
        match kind {
            Kind::Seeder => &mut self.seeders,
            Kind::Leecher => &mut self.leechers,
        }
    }
}

impl Rack {
    fn peers(&self, kind: Kind) -> &[PeerId] {
        match kind {
            Kind::Seeder => &self.seeders,
            Kind::Leecher => &self.leechers,
        }
    }

    fn peers_mut(&mut self, kind: Kind) -> &mut Vec<PeerId> {
        match kind {
            Kind::Seeder => &mut self.seeders,
            Kind::Leecher => &mut self.leechers,
        }
    }
}

/// The peers of one rack, or of all but one, that an asker may get: seeders first, then leechers.
struct Candidates<'a> {
    pool: &'a Pool,
    side: Side,
    asker: Asker<'a>,
}

#[derive(Clone, Copy)]
enum Side {
    In(Option<usize>),
    OutOf(Option<usize>),
}

impl Candidates<'_> {
    fn count(&self) -> usize {
        self.seeders() + self.count_of(Kind::Leecher)
    }

    fn seeders(&self) -> usize {
        if self.asker.kind == Kind::Seeder { 0 } else { self.count_of(Kind::Seeder) }
    }

    fn nth(&self, rank: usize) -> PeerId {
        match rank.checked_sub(self.seeders()) {
            None => self.nth_of(Kind::Seeder, rank),
            Some(rank) => self.nth_of(Kind::Leecher, rank),
        }
    }

    fn count_of(&self, kind: Kind) -> usize {
        let in_rack = |rack: Option<usize>| rack.map_or(0, |rack| self.pool.racks[rack].peers(kind).len());
        let all = match self.side {
            Side::In(rack) => in_rack(rack),
            Side::OutOf(rack) => self.pool.sums(kind).total() - in_rack(rack),
        };
        all - usize::from(self.asker_among(kind).is_some())
    }

    fn nth_of(&self, kind: Kind, mut rank: usize) -> PeerId {
        rank += usize::from(self.asker_among(kind).is_some_and(|asker| rank >= asker));
        match self.side {
            Side::In(rack) => self.pool.racks[rack.expect("no rack, no rank in it")].peers(kind)[rank],
            Side::OutOf(rack) => {
                let sums = self.pool.sums(kind);
                if let Some(rack) = rack.filter(|&rack| rank >= sums.before(rack)) {
                    rank += self.pool.racks[rack].peers(kind).len();
                }
                let (rack, at) = sums.find(rank);
                self.pool.racks[rack].peers(kind)[at]
            }
        }
    }

    /// The rank of the asker itself among the peers of `kind` on this side.
    fn asker_among(&self, kind: Kind) -> Option<usize> {
        let place = self.asker.place.filter(|place| place.kind == kind)?;
        match self.side {
            Side::In(rack) => (rack == Some(place.rack)).then_some(place.at),
            // Outside of its own rack an asker is only if it names none, and then nothing is left out before it.
            Side::OutOf(None) => Some(self.pool.sums(kind).before(place.rack) + place.at),
            Side::OutOf(Some(_)) => None,
        }
    }
}

/// `count` different numbers below `bound`, every such set equally likely (Floyd's method).
fn sample(rng: &mut Rng, bound: usize, count: usize) -> Vec<usize> {
    let mut drawn = Vec::with_capacity(count);
    for last in bound - count..bound {
        let number = rng.below(last as u32 + 1) as usize;
        drawn.push(if drawn.contains(&number) { last } else { number });
    }
    drawn
}

/// Counts in a row, with sums over their beginnings (Fenwick 1994): every operation takes logarithmic time.
#[derive(Debug, Default)]
struct SumTree {
    /// At `i`: the sum of the counts `i + 1 - lowest_bit(i + 1) ..= i`.
    sums: Vec<usize>,
    total: usize,
}

impl SumTree {
    /// Appends a count of zero.
    fn push(&mut self) {
        let node = self.sums.len() + 1;
        let first = node - lowest_bit(node);
        self.sums.push(self.before(node - 1) - self.before(first));
    }

    fn add(&mut self, at: usize, change: isize) {
        let mut node = at + 1;
        while let Some(sum) = self.sums.get_mut(node - 1) {
            *sum = sum.strict_add_signed(change);
            node += lowest_bit(node);
        }
        self.total = self.total.strict_add_signed(change);
    }

    fn total(&self) -> usize {
        self.total
    }

    /// The sum of the counts before `at`.
    fn before(&self, at: usize) -> usize {
        let (mut node, mut sum) = (at, 0);
        while node > 0 {
            sum += self.sums[node - 1];
            node -= lowest_bit(node);
        }
        sum
    }

    /// Which count the number `rank` falls into, and how far. `rank` must be below the total.
    fn find(&self, mut rank: usize) -> (usize, usize) {
        let mut node = 0;
        let mut step = self.sums.len().checked_ilog2().map_or(0, |log| 1 << log);
        while step > 0 {
            if let Some(&sum) = self.sums.get(node + step - 1).filter(|&&sum| sum <= rank) {
                rank -= sum;
                node += step;
            }
            step /= 2;
        }
        (node, rank)
    }
}

const fn lowest_bit(node: usize) -> usize {
    node & node.wrapping_neg()
}
