//! Hosts that were reached, kept over restarts: where to begin when no tracker answers.
//!
//! One small file, `STATE/hosts.json`, replaced whole and rarely. Nothing depends on it: one that is missing or damaged
//! is as good as an empty one.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use drover_link::{durable, kept};
use drover_protocol::id::PeerId;
use drover_protocol::message::PeerAddress;
use serde::{Deserialize, Serialize};

/// Most hosts that are remembered: more than enough for some of them to live.
pub(crate) const REMEMBERED_MOST: usize = 64;
/// A file of ours is no longer.
const LONGEST: u64 = 64 * 1024;

/// The file of one state folder.
#[derive(Clone, Debug)]
pub(crate) struct Remembered {
    path: PathBuf,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Host {
    peer: PeerId,
    addr: SocketAddr,
}

impl Remembered {
    pub(crate) fn in_state(state: &Path) -> Self {
        Remembered { path: state.join("hosts.json") }
    }

    /// Who was reached before the last restart.
    pub(crate) fn load(&self) -> Vec<PeerAddress> {
        let hosts: Vec<Host> = kept::load(&self.path, LONGEST).unwrap_or_default();
        let hosts = hosts.into_iter().take(REMEMBERED_MOST);
        hosts.map(|host| PeerAddress { peer: host.peer, addrs: vec![host.addr] }).collect()
    }

    /// Remembers these, which were reached last, and behind them those of before, as far as there is room: a host that comes
    /// up while most others are down is not to forget them.
    pub(crate) fn save(&self, hosts: &[(PeerId, SocketAddr)]) -> Result<(), durable::WriteError> {
        let mut hosts: Vec<Host> = hosts.iter().map(|&(peer, addr)| Host { peer, addr }).collect();
        let earlier =
            self.load().into_iter().filter_map(|host| Some(Host { peer: host.peer, addr: *host.addrs.first()? }));
        let earlier =
            earlier.filter(|host| hosts.iter().all(|other| other.peer != host.peer && other.addr != host.addr));
        hosts.extend(earlier.collect::<Vec<_>>());
        hosts.truncate(REMEMBERED_MOST);
        let json = serde_json::to_vec_pretty(&hosts).expect("ids and addresses are plain JSON");
        durable::replace(&self.path, &json, durable::PRIVATE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_comes_back_within_its_bound_and_damage_is_nothing() {
        let state = tempfile::tempdir().expect("a temporary folder");
        let remembered = Remembered::in_state(state.path());
        assert_eq!(remembered.load(), []);
        let hosts: Vec<_> = (0..100u8)
            .map(|number| (PeerId::from_bytes([number; 32]), SocketAddr::from(([10, 0, 0, number], 7444))))
            .collect();
        remembered.save(&hosts).expect("written");
        let loaded = remembered.load();
        assert_eq!(loaded.len(), REMEMBERED_MOST);
        assert_eq!((loaded[7].peer, loaded[7].addrs.clone()), (hosts[7].0, vec![hosts[7].1]));
        // Few that were reached since come first, and the others stay behind them.
        let (again, moved) = ((hosts[40].0, hosts[40].1), SocketAddr::from(([10, 9, 9, 9], 7444)));
        remembered.save(&[again, (hosts[7].0, moved)]).expect("written");
        let loaded = remembered.load();
        assert_eq!((loaded.len(), loaded[0].peer, loaded[1].addrs.clone()), (REMEMBERED_MOST, again.0, vec![moved]));
        let peers: std::collections::BTreeSet<PeerId> = loaded.iter().map(|host| host.peer).collect();
        assert_eq!(peers.len(), REMEMBERED_MOST, "each once");
        for damage in [&b"["[..], &vec![b' '; LONGEST as usize + 1]] {
            std::fs::write(state.path().join("hosts.json"), damage).expect("written");
            assert_eq!(remembered.load(), []);
        }
    }
}
