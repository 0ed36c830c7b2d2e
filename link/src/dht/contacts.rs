//! Nodes that have answered: where lookups begin.

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

#[derive(Debug, Default)]
pub(super) struct Contacts(BTreeMap<SocketAddrV4, (NodeId, Instant)>);

impl Contacts {
    /// A node answered.
    pub(super) fn answered(&mut self, now: Instant, node: SocketAddrV4, id: NodeId) {
        if let Some(known) = self.0.get_mut(&node) {
            *known = (id, now);
            return;
        }
        self.0.retain(|_, (_, at)| now.duration_since(*at) < FORGOTTEN_AFTER);
        let of_address = self.0.keys().filter(|known| known.ip() == node.ip()).count();
        if self.0.len() < MOST && of_address < OF_ONE_ADDRESS {
            self.0.insert(node, (id, now));
        }
    }

    /// A node gave no answer.
    pub(super) fn silent(&mut self, node: &SocketAddrV4) {
        self.0.remove(node);
    }

    /// All of them.
    pub(super) fn all(&self, now: Instant) -> Vec<(NodeId, SocketAddrV4)> {
        let lately = self.0.iter().filter(|(_, (_, at))| now.duration_since(*at) < FORGOTTEN_AFTER);
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
        contacts.silent(&node(2, 1));
        let later = began + FORGOTTEN_AFTER / 2;
        contacts.answered(later, node(3, 1), [3; 20]);
        assert_eq!(contacts.all(later).len(), MOST - 1);
        assert_eq!(contacts.all(began + FORGOTTEN_AFTER), [([3; 20], node(3, 1))]);
        contacts.answered(began + FORGOTTEN_AFTER, node(2000, 1), [4; 20]);
        assert_eq!(contacts.all(began + FORGOTTEN_AFTER).len(), 2);
    }
}
