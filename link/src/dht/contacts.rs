//! Nodes that have answered, where lookups begin, and those that lately did not.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::time::Duration;

use drover_protocol::krpc::NodeId;
use tokio::time::Instant;

/// As many as are kept.
const MOST: usize = 256;
/// As many at one address.
const OF_ONE_ADDRESS: usize = 8;
/// A node that has not answered for so long is none.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(1800);

/// A node that was silent is not asked again for so long because somebody names it. As many are kept.
const SILENT_FOR: Duration = Duration::from_secs(60);
const SILENT_MOST: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Contacts {
    answered: BTreeMap<SocketAddrV4, (NodeId, Instant)>,
    silent: BTreeMap<SocketAddrV4, Instant>,
}

impl Contacts {
    /// A node answered.
    pub(super) fn answered(&mut self, now: Instant, node: SocketAddrV4, id: NodeId) {
        self.silent.remove(&node);
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

    /// A node gave no answer.
    pub(super) fn silent(&mut self, now: Instant, node: SocketAddrV4) {
        self.answered.remove(&node);
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
}
