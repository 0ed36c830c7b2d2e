//! Nodes that have answered, where lookups begin, those that are being asked, and those that lately were silent.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::time::Duration;

use drover_protocol::krpc::NodeId;
use tokio::time::Instant;

use super::asker::SILENT_AFTER;

/// As many as are kept.
const MOST: usize = 256;
/// As many at one address.
const OF_ONE_ADDRESS: usize = 8;
/// A node that has not answered for so long is none.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(1800);

/// A lookup has seen after this time what came of a question, or has ended without looking.
const ASKED_FOR: Duration = SILENT_AFTER.saturating_mul(2);
/// A node that was silent is not asked again for so long because somebody names it. As many are kept.
const SILENT_FOR: Duration = Duration::from_secs(60);
const SILENT_MOST: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Contacts {
    answered: BTreeMap<SocketAddrV4, (NodeId, Instant)>,
    /// Nodes that have not answered yet, and since when a lookup asks them: for so long only, and so few.
    asked: BTreeMap<SocketAddrV4, Instant>,
    silent: BTreeMap<SocketAddrV4, Instant>,
}

impl Contacts {
    /// A node answered.
    pub(super) fn answered(&mut self, now: Instant, node: SocketAddrV4, id: NodeId) {
        self.heard(&node);
        if let Some(known) = self.answered.get_mut(&node) {
            *known = (id, now);
            return;
        }
        self.answered.retain(|_, (_, at)| now.duration_since(*at) < FORGOTTEN_AFTER);
        let of_address = self.answered.keys().filter(|known| known.ip() == node.ip()).count();
        if self.answered.len() < MOST && of_address < OF_ONE_ADDRESS {
            self.answered.insert(node, (id, now));
        }
    }

    /// A node gave an answer of any kind.
    pub(super) fn heard(&mut self, node: &SocketAddrV4) {
        self.asked.remove(node);
        self.silent.remove(node);
    }

    /// Whether a lookup may ask a node now; if so, others may not until it has answered or was silent, unless it has answered
    /// before.
    pub(super) fn begin_asking(&mut self, now: Instant, node: SocketAddrV4) -> bool {
        if self.answered.contains_key(&node) {
            return true;
        }
        if self.is_asked(now, &node) {
            return false;
        }
        self.asked.retain(|_, at| now.duration_since(*at) < ASKED_FOR);
        self.asked.insert(node, now);
        true
    }

    /// Whether a lookup asks a node that has not answered yet.
    pub(super) fn is_asked(&self, now: Instant, node: &SocketAddrV4) -> bool {
        self.asked.get(node).is_some_and(|at| now.duration_since(*at) < ASKED_FOR)
    }

    /// A node gave no answer.
    pub(super) fn silent(&mut self, now: Instant, node: SocketAddrV4) {
        self.answered.remove(&node);
        self.asked.remove(&node);
        self.silent.retain(|_, at| now.duration_since(*at) < SILENT_FOR);
        if self.silent.len() < SILENT_MOST {
            self.silent.insert(node, now);
        }
    }

    /// Whether a node gave no answer lately.
    pub(super) fn was_silent(&self, now: Instant, node: &SocketAddrV4) -> bool {
        self.silent.get(node).is_some_and(|at| now.duration_since(*at) < SILENT_FOR)
    }

    /// All that have answered.
    pub(super) fn all(&self, now: Instant) -> Vec<(NodeId, SocketAddrV4)> {
        let lately = self.answered.iter().filter(|(_, (_, at))| now.duration_since(*at) < FORGOTTEN_AFTER);
        lately.map(|(node, (id, _))| (*id, *node)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn node(ip: u32, port: u16) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::from_bits(0x0a00_0000 + ip), port)
    }

    #[test]
    fn who_answered_lately_is_known_and_nobody_fills_it_from_one_address() {
        let (mut contacts, began) = (Contacts::default(), Instant::now());
        for port in 1..1000 {
            contacts.answered(began, node(1, port), [1; 20]);
        }
        assert_eq!(contacts.all(began).len(), OF_ONE_ADDRESS);
        for ip in 2..1000 {
            contacts.answered(began, node(ip, 1), [1; 20]);
        }
        assert_eq!(contacts.all(began).len(), MOST);
        contacts.silent(began, node(2, 1));
        assert!(contacts.was_silent(began, &node(2, 1)) && !contacts.was_silent(began + SILENT_FOR, &node(2, 1)));
        let later = began + FORGOTTEN_AFTER / 2;
        contacts.answered(later, node(3, 1), [3; 20]);
        assert_eq!(contacts.all(later).len(), MOST - 1);
        assert_eq!(contacts.all(began + FORGOTTEN_AFTER), [([3; 20], node(3, 1))]);
        contacts.answered(began + FORGOTTEN_AFTER, node(2000, 1), [4; 20]);
        assert_eq!(contacts.all(began + FORGOTTEN_AFTER).len(), 2);
        (0..2000).for_each(|ip| contacts.silent(later, node(ip, 2)));
        assert_eq!(contacts.silent.len(), SILENT_MOST);
    }

    #[test]
    fn one_lookup_at_a_time_asks_a_node_that_has_not_answered() {
        let (mut contacts, began) = (Contacts::default(), Instant::now());
        let may_ask = |contacts: &mut Contacts, now| contacts.begin_asking(now, node(1, 1));
        assert!(may_ask(&mut contacts, began) && !may_ask(&mut contacts, began));
        contacts.heard(&node(1, 1));
        assert!(may_ask(&mut contacts, began) && !may_ask(&mut contacts, began));
        contacts.silent(began, node(1, 1));
        assert!(may_ask(&mut contacts, began), "whoever begins with it asks all the same");
        assert!(may_ask(&mut contacts, began + ASKED_FOR), "a lookup that has ended keeps nobody from asking");
        contacts.answered(began, node(1, 1), [1; 20]);
        assert!(may_ask(&mut contacts, began) && may_ask(&mut contacts, began));
    }
}
