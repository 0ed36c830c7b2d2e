//! Lookups in tables with machines that lie, each from a seed.

use super::*;
use crate::rng::Rng;

/// How a machine at an address answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Honest,
    /// Names itself on ports without end, each nearer than the one before.
    Tempter,
    /// Names nodes that are not there, all nearer than anybody.
    Chatterer,
    /// Names others' addresses with ids that are not theirs.
    Misnamer,
    /// Answers on many ports with ids that are nearer than anybody's.
    Crowd,
}

/// Nodes, each of which knows some of the others; liars are known to all.
struct World {
    rng: Rng,
    nodes: Vec<(NodeId, SocketAddrV4, Kind)>,
    knows: Vec<Vec<usize>>,
}

const TARGET: NodeId = [7; 20];

fn at(ip: usize, port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::from_bits(0x0a00_0000 + ip as u32), port)
}

fn near(rank: usize) -> NodeId {
    let mut id = TARGET;
    id[12..].copy_from_slice(&(u64::from_be_bytes([7; 8]) ^ (1 << 40) ^ rank as u64).to_be_bytes());
    id
}

fn id(rng: &mut Rng) -> NodeId {
    std::array::from_fn(|_| rng.below(256) as u8)
}

impl World {
    fn new(seed: u64, honest: usize, liars: &[Kind]) -> Self {
        let mut rng = Rng::seeded(seed);
        let kinds = liars.iter().copied().chain(core::iter::repeat_n(Kind::Honest, honest));
        let nodes: Vec<_> = kinds.enumerate().map(|(ip, kind)| (id(&mut rng), at(ip, 7445), kind)).collect();
        let mut known = || {
            let mut others: Vec<usize> = (liars.len()..nodes.len()).collect();
            rng.shuffle(&mut others);
            others.truncate(64);
            (0..liars.len()).chain(others).collect()
        };
        let knows = nodes.iter().map(|_| known()).collect();
        World { rng, nodes, knows }
    }

    /// What a node answers: its id, and whom it names.
    fn answer(&mut self, asked: SocketAddrV4) -> Option<(NodeId, Vec<(NodeId, SocketAddrV4)>)> {
        let number = self.nodes.iter().position(|(_, node, _)| node.ip() == asked.ip())?;
        let (own, node, kind) = self.nodes[number];
        let port = usize::from(asked.port());
        match kind {
            Kind::Honest if asked != node => None,
            Kind::Honest => {
                let distance = |of: &NodeId| -> NodeId { std::array::from_fn(|at| of[at] ^ TARGET[at]) };
                let mut named: Vec<_> = self.knows[number].iter().map(|&other| self.nodes[other]).collect();
                named.sort_by_key(|(id, _, kind)| if *kind == Kind::Honest { distance(id) } else { [0; 20] });
                Some((own, named.into_iter().take(NEAREST).map(|(id, node, _)| (id, node)).collect()))
            }
            Kind::Tempter => Some((near(60_000 - port), vec![(near(59_999 - port), at(number, asked.port() + 1))])),
            Kind::Chatterer => {
                let dead = (0..60).map(|_| at(100_000 + self.rng.below(1 << 20) as usize, 7445));
                let named: Vec<_> = dead.collect();
                Some((
                    near(port),
                    named.into_iter().map(|node| (near(self.rng.below(1 << 20) as usize), node)).collect(),
                ))
            }
            Kind::Misnamer => {
                let honest = self.nodes.iter().filter(|(.., kind)| *kind == Kind::Honest).map(|(_, node, _)| *node);
                let named: Vec<_> = honest.take(60).collect();
                Some((near(port), named.into_iter().enumerate().map(|(rank, node)| (near(rank), node)).collect()))
            }
            Kind::Crowd => {
                let ports = (0..60).map(|port| at(number, 10_000 + port));
                Some((near(port), ports.map(|node| (near(usize::from(node.port())), node)).collect()))
            }
        }
    }

    /// A lookup by somebody who knows these; its questions and what it found nearest.
    fn walk(&mut self, begin: &[usize]) -> (usize, Vec<SocketAddrV4>) {
        let mut walk = Walk::new(TARGET);
        for &node in begin {
            walk.begin_at(self.nodes[node].1);
        }
        let (mut under_way, mut questions) = (Vec::new(), 0);
        loop {
            while under_way.len() < 32
                && let Some(node) = walk.next_question()
            {
                questions += 1;
                under_way.push(node);
            }
            if under_way.is_empty() {
                break;
            }
            let asked = under_way.swap_remove(self.rng.below(under_way.len() as u32) as usize);
            match self.answer(asked) {
                Some((id, named)) => walk.handle_answer(asked, &id, Some(vec![1]), named),
                None => walk.handle_silence(asked),
            }
        }
        (questions, walk.nearest().into_iter().map(|(node, _)| node).collect())
    }

    fn is_honest(&self, node: &SocketAddrV4) -> bool {
        self.nodes.iter().any(|(_, known, kind)| known == node && *kind == Kind::Honest)
    }
}

/// Has two newcomers that know one honest node each look up the same: whether the second finds what the first had kept.
fn meet(seed: u64, honest: usize, liars: &[Kind]) -> bool {
    let mut world = World::new(seed, honest, liars);
    let pick = |world: &mut World| liars.len() + world.rng.below(honest as u32) as usize;
    let (one, other) = (pick(&mut world), pick(&mut world));
    let (questions, nearest) = world.walk(&[one]);
    assert!(questions <= QUESTIONS_MOST + 1, "seed {seed}: {questions} questions");
    let kept: BTreeSet<SocketAddrV4> = nearest.into_iter().filter(|node| world.is_honest(node)).collect();
    let (_, nearest) = world.walk(&[other]);
    nearest.iter().any(|node| kept.contains(node))
}

#[test]
fn without_liars_a_lookup_ends_at_the_nearest_nodes_of_all_with_few_questions() {
    for seed in 0..50 {
        let mut world = World::new(seed, 300, &[]);
        let (questions, nearest) = world.walk(&[3]);
        let mut all = world.nodes.clone();
        all.sort_by_key(|(id, ..)| -> NodeId { std::array::from_fn(|at| id[at] ^ TARGET[at]) });
        let expected: BTreeSet<_> = all.iter().take(NEAREST).map(|(_, node, _)| *node).collect();
        let right = nearest.iter().filter(|node| expected.contains(node)).count();
        assert!(right >= NEAREST - 1, "seed {seed}: {right} of {NEAREST}");
        assert!(questions <= 60, "seed {seed}: {questions} questions");
    }
}

#[test]
fn two_newcomers_meet_in_a_table_with_ten_machines_that_lie() {
    for kind in [Kind::Tempter, Kind::Chatterer, Kind::Misnamer, Kind::Crowd] {
        for honest in [2, 12, 100, 300] {
            for seed in 0..20 {
                assert!(meet(seed, honest, &[kind; 10]), "{honest} honest nodes, {kind:?}, seed {seed}");
            }
        }
    }
}

#[test]
fn two_newcomers_meet_beside_liars_of_all_kinds_at_once() {
    let liars = [Kind::Tempter, Kind::Chatterer, Kind::Misnamer, Kind::Crowd];
    for seed in 0..200 {
        assert!(meet(seed, 12 + seed as usize, &liars), "seed {seed}");
    }
}

#[test]
fn a_lookup_goes_on_past_nodes_that_are_down() {
    let mut world = World::new(1, 100, &[]);
    let down: BTreeSet<_> = (0..90).map(|number| world.nodes[number].1).collect();
    let mut walk = Walk::new(TARGET);
    (0..100).for_each(|number| walk.begin_with(world.nodes[number].0, world.nodes[number].1));
    let mut silent = BTreeSet::new();
    while let Some(asked) = walk.next_question() {
        match world.answer(asked).filter(|_| !down.contains(&asked)) {
            Some((id, named)) => walk.handle_answer(asked, &id, Some(vec![1]), named),
            None => {
                silent.insert(asked);
                walk.handle_silence(asked);
            }
        }
        assert!(!walk.is_named(&asked), "the lookup began with all that there are");
    }
    assert_eq!(walk.nearest().len(), 10, "all that are there");
    assert_eq!(silent, down, "each was asked");
}
