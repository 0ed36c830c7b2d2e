//! A lookup in the hash table that nodes which lie can neither lengthen nor fill.
//!
//! It is Kademlia's (Maymounkov and Mazières, 2002): whoever is nearest to the target is asked for nodes that are nearer,
//! until the nearest [`NEAREST`] have answered. Against liars
//!
//! - a lookup has so many questions at most, however near the nodes are that are named;
//! - nodes at one address, but for the nearest of them, come after those at all others, whatever they call themselves;
//! - who names nodes that do not answer is soon heard after everybody else, and nobody names more than a few.
//!
//! So a machine that lies costs a lookup some questions, and honest nodes are asked all the same. One that answers from many
//! addresses near to a target can fill what is nearest to it.

use core::net::{Ipv4Addr, SocketAddrV4};
use std::collections::{BTreeMap, BTreeSet};

use crate::krpc::NodeId;

/// Nodes that keep what is put under a target: k of BEP 5, as `mainline` has it.
pub const NEAREST: usize = 20;
/// Questions to nodes that others named.
pub const QUESTIONS_MOST: usize = 128;
/// Nodes that are taken from who answers at one address: an honest one names [`NEAREST`].
const NAMED_MOST: usize = 64;
/// Who named so many more that are silent than that answer is heard after others.
const SILENT_MOST: usize = 3;

/// A lookup. Its driver asks whom it names and tells what came of it.
#[derive(Debug)]
pub struct Walk {
    target: NodeId,
    nodes: BTreeMap<SocketAddrV4, Seen>,
    /// Nodes to begin with of which nothing else is known.
    unknown: Vec<SocketAddrV4>,
    tellers: BTreeMap<Ipv4Addr, Teller>,
    questions: usize,
}

/// What is known of a node.
#[derive(Debug)]
struct Seen {
    /// What its id and the target do not share.
    distance: NodeId,
    /// Who named it; nobody if the lookup began with it.
    told_by: BTreeSet<Ipv4Addr>,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Fresh,
    Asked,
    /// It answered, and this is to be shown with what it is to keep.
    Answered(Option<Vec<u8>>),
    Silent,
}

/// Who named nodes.
#[derive(Debug, Default)]
struct Teller {
    named: usize,
    answered: usize,
    silent: usize,
}

impl Walk {
    /// A lookup of what is near to `target`.
    pub fn new(target: NodeId) -> Self {
        let (nodes, tellers) = (BTreeMap::new(), BTreeMap::new());
        Walk { target, nodes, unknown: Vec::new(), tellers, questions: 0 }
    }

    /// Begins with a node that has answered before.
    pub fn begin_with(&mut self, id: NodeId, node: SocketAddrV4) {
        let seen = Seen { distance: self.distance(&id), told_by: BTreeSet::new(), state: State::Fresh };
        self.nodes.insert(node, seen);
    }

    /// Begins with whoever is there.
    pub fn begin_at(&mut self, node: SocketAddrV4) {
        if !self.nodes.contains_key(&node) && !self.unknown.contains(&node) {
            self.unknown.push(node);
        }
    }

    /// Whom to ask next; `None` while nobody is to be asked, until there are more answers, and in the end.
    pub fn next_question(&mut self) -> Option<SocketAddrV4> {
        if self.questions >= QUESTIONS_MOST {
            return None;
        }
        let is_fresh = |node: &SocketAddrV4| self.nodes[node].state == State::Fresh;
        if let Some(node) = self.ranked().into_iter().take(NEAREST).find(is_fresh) {
            self.questions += 1;
            self.nodes.get_mut(&node).expect("it is ranked").state = State::Asked;
            return Some(node);
        }
        self.unknown.pop()
    }

    /// A node answered, named others and gave a token.
    pub fn handle_answer(
        &mut self,
        node: SocketAddrV4,
        id: &NodeId,
        token: Option<Vec<u8>>,
        named: impl IntoIterator<Item = (NodeId, SocketAddrV4)>,
    ) {
        let distance = self.distance(id);
        let begun = || Seen { distance, told_by: BTreeSet::new(), state: State::Asked };
        let seen = self.nodes.entry(node).or_insert_with(begun);
        (seen.distance, seen.state) = (distance, State::Answered(token));
        for by in &seen.told_by {
            self.tellers.entry(*by).or_default().answered += 1;
        }
        for (id, other) in named {
            let distance = self.distance(&id);
            let teller = self.tellers.entry(*node.ip()).or_default();
            if let Some(seen) = self.nodes.get_mut(&other) {
                if seen.state == State::Fresh && !seen.told_by.is_empty() {
                    seen.told_by.insert(*node.ip());
                }
            } else if teller.named < NAMED_MOST {
                teller.named += 1;
                let told_by = BTreeSet::from([*node.ip()]);
                self.nodes.insert(other, Seen { distance, told_by, state: State::Fresh });
            }
        }
    }

    /// A node gave no answer.
    pub fn handle_silence(&mut self, node: SocketAddrV4) {
        let Some(seen) = self.nodes.get_mut(&node) else { return };
        seen.state = State::Silent;
        for by in &seen.told_by {
            self.tellers.entry(*by).or_default().silent += 1;
        }
    }

    /// Whether others named a node with which the lookup did not begin.
    pub fn is_named(&self, node: &SocketAddrV4) -> bool {
        self.nodes.get(node).is_some_and(|seen| !seen.told_by.is_empty())
    }

    /// The nearest that answered and what each wants to be shown, at most [`NEAREST`].
    pub fn nearest(&self) -> Vec<(SocketAddrV4, &[u8])> {
        let with_token = |node: SocketAddrV4| match &self.nodes[&node].state {
            State::Answered(Some(token)) => Some((node, &token[..])),
            _ => None,
        };
        self.ranked().into_iter().filter_map(with_token).take(NEAREST).collect()
    }

    /// Nodes that may be there, the better ones first.
    fn ranked(&self) -> Vec<SocketAddrV4> {
        let mut nodes: Vec<_> = self.nodes.iter().filter(|(_, seen)| seen.state != State::Silent).collect();
        nodes.sort_unstable_by_key(|(_, seen)| seen.distance);
        let mut addresses = BTreeSet::new();
        let (mut good, mut others) = (Vec::new(), Vec::new());
        for (node, seen) in nodes {
            let is_good = addresses.insert(node.ip()) && !self.is_hearsay(seen);
            if is_good { &mut good } else { &mut others }.push(*node);
        }
        good.append(&mut others);
        good
    }

    /// Whether nobody names a node but those who have named too many silent ones.
    fn is_hearsay(&self, seen: &Seen) -> bool {
        let is_doubted =
            |by: &Ipv4Addr| self.tellers.get(by).is_some_and(|teller| teller.silent > teller.answered + SILENT_MOST);
        let is_open = matches!(seen.state, State::Fresh | State::Asked);
        is_open && !seen.told_by.is_empty() && seen.told_by.iter().all(is_doubted)
    }

    fn distance(&self, id: &NodeId) -> NodeId {
        std::array::from_fn(|at| self.target[at] ^ id[at])
    }
}

#[cfg(test)]
mod tests;
