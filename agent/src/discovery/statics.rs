//! Hosts that the settings name (`peers`): each is dialled until it answers, and asked again now and then, since it may be a
//! new host that knows nobody and waits to be found.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use drover_protocol::hints::Source;
use drover_protocol::id::PeerId;
use serde::{Deserialize, Serialize};
use tokio::net::lookup_host;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::retry::Retry;
use crate::clock;
use crate::transport::Links;

/// One that answered is asked again so often while nobody is connected with it.
const VISIT_EVERY: Duration = Duration::from_secs(300);
/// And no sooner than after this time, whatever this host lacks.
const REST: Duration = Duration::from_secs(30);
/// A host that is connected with nobody tries so often, since who is full has a place free for moments only.
const ALONE_MOST: Duration = Duration::from_secs(4);

/// How a host of the settings stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StaticPeer {
    /// "host:port", as in the settings.
    pub address: String,
    /// Who answered there last; this host itself, if it is named in its own settings.
    pub peer: Option<PeerId>,
    /// Why nobody did at the last attempt.
    pub problem: Option<String>,
}

/// The hosts of the settings, in their order. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct StaticPeers(Arc<Mutex<Vec<StaticPeer>>>);

/// The dials of these hosts.
pub(super) struct Visits {
    hosts: StaticPeers,
    each: Vec<Visit>,
    dials: JoinSet<(usize, Result<PeerId, String>)>,
}

#[derive(Clone, Copy, Debug)]
struct Visit {
    retry: Retry,
    /// Who answered at the last attempt, and when to see whether it is still there.
    answered: Option<(PeerId, Instant)>,
    is_under_way: bool,
}

impl Visit {
    /// Whether to dial: `lacks` says whether this host lacks acquaintances.
    fn is_due(&self, now: Instant, lacks: bool, is_connected: impl Fn(PeerId) -> bool) -> bool {
        let is_wanted = self.answered.is_none_or(|(peer, again_at)| !is_connected(peer) && (lacks || again_at <= now));
        is_wanted && !self.is_under_way && self.retry.is_due(now)
    }
}

impl Visits {
    pub(super) fn of(hosts: StaticPeers) -> Self {
        let visit = Visit { retry: Retry::at(Instant::now()), answered: None, is_under_way: false };
        Visits { each: vec![visit; hosts.show().len()], hosts, dials: JoinSet::new() }
    }

    /// Dials those that it is time for, at most so many at a time. `lacks` says whether this host lacks acquaintances.
    pub(super) fn dial(&mut self, links: &Links, lacks: bool, most: usize) {
        let now = Instant::now();
        for (at, host) in self.hosts.show().into_iter().enumerate() {
            let is_connected = |peer| peer == links.me() || links.standing(peer).is_some();
            if self.dials.len() >= most || !self.each[at].is_due(now, lacks, is_connected) {
                continue;
            }
            self.each[at].retry.again(now);
            if links.all().is_empty() {
                self.each[at].retry.no_later(now + ALONE_MOST);
            }
            self.each[at].is_under_way = true;
            let links = links.clone();
            self.dials.spawn(async move { (at, dial(&links, &host.address).await) });
        }
    }

    /// Waits for a dial to end, and notes what came of it; for ever while there is none.
    pub(super) async fn next(&mut self) {
        match self.dials.join_next().await {
            Some(Ok((at, reached))) => self.on_dialled(at, reached),
            Some(Err(_)) => {}
            None => std::future::pending().await,
        }
    }

    fn on_dialled(&mut self, at: usize, reached: Result<PeerId, String>) {
        let text = &self.hosts.show()[at].address;
        self.each[at].is_under_way = false;
        match &reached {
            Ok(peer) => {
                tracing::info!(peer = %peer.short(), "host {text} of the settings reached");
                let now = Instant::now();
                let again_at = now + clock::jittered(VISIT_EVERY);
                // Not at once again if it had no room.
                (self.each[at].retry, self.each[at].answered) = (Retry::at(now + REST), Some((*peer, again_at)));
            }
            Err(why) => {
                // Once for each time that it is lost: it is tried over and over.
                if self.hosts.answered(at) {
                    tracing::warn!("host {text} of the settings (peers) can't be reached: {why}");
                } else {
                    tracing::debug!("host {text} of the settings can't be reached: {why}");
                }
                self.each[at].answered = None;
            }
        }
        self.hosts.note(at, reached);
    }
}

impl StaticPeers {
    pub(crate) fn of(addresses: &[String]) -> Self {
        let host = |address: &String| StaticPeer { address: address.clone(), peer: None, problem: None };
        StaticPeers(Arc::new(Mutex::new(addresses.iter().map(host).collect())))
    }

    pub(crate) fn show(&self) -> Vec<StaticPeer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the last attempt went well, or is the first.
    fn answered(&self, at: usize) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)[at].problem.is_none()
    }

    fn note(&self, at: usize, reached: Result<PeerId, String>) {
        let host = &mut self.0.lock().unwrap_or_else(PoisonError::into_inner)[at];
        match reached {
            Ok(peer) => (host.peer, host.problem) = (Some(peer), None),
            Err(why) => host.problem = Some(why),
        }
    }
}

async fn dial(links: &Links, text: &str) -> Result<PeerId, String> {
    let addrs = lookup_host(text).await.map_err(|error| format!("can't find {text}: {error}"))?;
    let mut problem = format!("{text} has no address");
    for addr in addrs {
        match links.reach_addr(addr, Source::Static).await {
            Ok(link) => return Ok(link.map_or(links.me(), |link| link.peer())),
            Err(why) => problem = why,
        }
    }
    Err(problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_never_answered_is_due_whoever_else_is_known_and_who_did_now_and_then() {
        let (now, peer) = (Instant::now(), PeerId::from_bytes([1; 32]));
        let mut visit = Visit { retry: Retry::at(now), answered: None, is_under_way: false };
        let (here, gone) = (|_: PeerId| true, |_: PeerId| false);
        assert!(visit.is_due(now, false, gone) && visit.is_due(now, false, here));
        visit.answered = Some((peer, now + VISIT_EVERY));
        assert!(!visit.is_due(now, false, gone), "it answered a moment ago");
        assert!(visit.is_due(now, true, gone) && !visit.is_due(now, true, here), "who lacks hosts asks who is gone");
        let later = now + VISIT_EVERY;
        assert!(visit.is_due(later, false, gone), "it may have forgotten everybody since");
        assert!(!visit.is_due(later, false, here), "it is here");
        visit.retry.again(later);
        assert!(!visit.is_due(later, true, gone), "it was just tried");
    }
}
