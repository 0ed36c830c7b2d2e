//! Which members are connected, and how much each has asked.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use drover_link::close;
use drover_link::endpoint::Link;
use drover_protocol::id::PeerId;
use quinn::VarInt;
use tokio::time::Instant;
use tracing::warn;

use crate::limits::{Allowance, CONNECTIONS_PER_MEMBER};

/// The members that are connected now.
#[derive(Default)]
pub(crate) struct Members {
    connected: Mutex<BTreeMap<PeerId, Connected>>,
}

struct Connected {
    name: String,
    links: VecDeque<Link>,
    allowance: Allowance,
}

impl Members {
    /// Notes a new connection. If its member has too many, the oldest is closed: its process is dead, more likely than
    /// not, and nobody can crowd out anybody but himself.
    pub(crate) fn arrive(&self, link: &Link) {
        let member = &link.member;
        let mut connected = self.lock();
        if connected.iter().any(|(&peer, other)| peer != member.peer && other.name == member.name) {
            warn!(%member, "two members with this name are connected; names are for people, keys tell members apart");
        }
        let entry = connected.entry(member.peer).or_insert_with(|| Connected {
            name: member.name.clone(),
            links: VecDeque::new(),
            allowance: Allowance::full(Instant::now()),
        });
        entry.links.push_back(link.clone());
        if entry.links.len() > CONNECTIONS_PER_MEMBER
            && let Some(oldest) = entry.links.pop_front()
        {
            oldest.close(close::DONE, "this member has opened newer connections");
        }
    }

    /// Notes that a connection has ended; whether it was its member's last.
    pub(crate) fn depart(&self, link: &Link) -> bool {
        let mut connected = self.lock();
        let Some(entry) = connected.get_mut(&link.member.peer) else { return true };
        entry.links.retain(|other| other.quic.stable_id() != link.quic.stable_id());
        let last = entry.links.is_empty();
        if last {
            connected.remove(&link.member.peer);
        }
        last
    }

    /// Closes connections whose member showed a certificate that has expired since: by then it has a new one, or should
    /// not be here any more.
    pub(crate) fn close_expired(&self, now_unix_s: u64) {
        for link in self.lock().values().flat_map(|entry| &entry.links) {
            if link.certificate_expires_unix_s <= now_unix_s {
                link.close(close::NOT_A_MEMBER, "the certificate shown has expired; connect again with a new one");
            }
        }
    }

    /// Closes a member's connections.
    pub(crate) fn close(&self, peer: PeerId, code: VarInt, reason: &str) {
        for link in self.lock().get(&peer).into_iter().flat_map(|entry| &entry.links) {
            link.close(code, reason);
        }
    }

    /// A connection of each member, from which it can be told who it is.
    pub(crate) fn all(&self) -> Vec<Link> {
        self.lock().values().filter_map(|entry| entry.links.back().cloned()).collect()
    }

    /// A member has a new certificate: its connections may live until that expires.
    pub(crate) fn extend(&self, peer: PeerId, expires_unix_s: u64) {
        for link in self.lock().get_mut(&peer).into_iter().flat_map(|entry| &mut entry.links) {
            link.certificate_expires_unix_s = expires_unix_s;
        }
    }

    /// When a question that a member asks now may be worked on.
    pub(crate) fn turn(&self, peer: PeerId) -> Instant {
        let now = Instant::now();
        self.lock().get_mut(&peer).map_or(now, |entry| entry.allowance.take(now))
    }

    /// Whether a connected member other than `peer` has this name.
    pub(crate) fn has_other_named(&self, name: &str, peer: PeerId) -> bool {
        self.lock().iter().any(|(&other, entry)| other != peer && entry.name == name)
    }

    /// How many members are connected.
    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PeerId, Connected>> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
