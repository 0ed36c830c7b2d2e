//! The task that keeps this host part of its fleet, whether a tracker answers or not.
//!
//! It holds links with a few hosts, whatever they exchange: its acquaintances. By them releases come here, and the names
//! of other hosts; a few links at random from each host make one connected whole of any fleet. It finds them among the
//! links that stand anyway, in the address book, and at the addresses of the settings. Now and then it chooses anew, so
//! that parts of a fleet that lost each other grow together again.
//!
//! For each image that is not complete and has few neighbours it asks everybody who is connected, ever more rarely.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use drover_protocol::discovery::DiscoveryMessage;
use drover_protocol::hints::{FEW_NEIGHBOURS, Source};
use drover_protocol::id::{ImageId, PeerId};
use drover_protocol::message::PeerMessage;
use drover_protocol::rng::Rng;
use serde::{Deserialize, Serialize};
use tokio::net::lookup_host;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Announcements;
use super::remembered::{REMEMBERED_MOST, Remembered};
use crate::clock;
use crate::transfer::workers::Workers;
use crate::transport::{Event, Link, Links, Router};

/// How often it is looked what is lacking.
const LOOK: Duration = Duration::from_secs(1);
/// Acquaintances that are sought: with four random links each, a fleet of ten thousand is connected.
const ACQUAINTANCES: usize = 4;
/// Hosts in the book below which acquaintances are asked for more, and how often.
const FEW_HOSTS: usize = 32;
const ASK_HOSTS_EVERY: Duration = Duration::from_secs(15);
/// How often acquaintances are chosen anew.
const RENEW_EVERY: Duration = Duration::from_secs(600);
/// After so many questions in vain, hosts of the book are tried for an image at random, so many at a time.
const TRIES_BEFORE_GUESSING: u32 = 1;
const GUESSES: usize = 16;
/// When to ask again, for an image or at an address; doubled each time.
const AGAIN_LEAST: Duration = Duration::from_secs(1);
const AGAIN_MOST: Duration = Duration::from_secs(30);
/// How soon after the first host was reached hosts are remembered, and how often after that; also as soon as there are
/// twice as many.
const REMEMBER_FIRST: Duration = Duration::from_secs(2);
const REMEMBER_EVERY: Duration = Duration::from_secs(300);
/// Dials of this task at a time.
const MOST_DIALS: usize = 8;

/// How a host of the settings stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StaticPeer {
    /// "host:port", as in the settings.
    pub address: String,
    /// Who answered there last.
    pub peer: Option<PeerId>,
    /// Why nobody did at the last attempt.
    pub problem: Option<String>,
}

/// The hosts of the settings, in their order. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct StaticPeers(Arc<Mutex<Vec<StaticPeer>>>);

/// What the task needs.
pub(crate) struct Parts {
    pub(crate) links: Links,
    pub(crate) router: Router,
    pub(crate) announcements: Announcements,
    pub(crate) workers: Workers,
    pub(crate) remembered: Remembered,
    /// Hosts that the settings name.
    pub(crate) statics: StaticPeers,
}

/// Something that is tried again and again, ever more rarely.
#[derive(Clone, Copy, Debug)]
struct Retry {
    next: Instant,
    tries: u32,
}

/// What became of a dial.
enum Dialled {
    /// The static peer of this number answered, or why it did not.
    Static(usize, Result<PeerId, String>),
    Known,
}

struct Finder {
    parts: Parts,
    rng: Rng,
    acquaintances: Vec<Link>,
    statics: Vec<(String, Option<PeerId>, Retry)>,
    seeking: BTreeMap<ImageId, Retry>,
    dials: JoinSet<Dialled>,
    ask_hosts_at: Instant,
    renew_at: Instant,
    remember_at: Option<Instant>,
    remembered: Vec<(PeerId, SocketAddr)>,
}

/// Runs until dropped.
pub(crate) async fn run(parts: Parts) {
    let remembered = parts.remembered.clone();
    let known = parts.workers.run(move || remembered.load()).await;
    parts.links.learn(&known, Source::Remembered);
    let now = Instant::now();
    let mut finder = Finder {
        statics: parts.statics.show().into_iter().map(|host| (host.address, None, Retry::at(now))).collect(),
        parts,
        rng: Rng::seeded(clock::seed()),
        acquaintances: Vec::new(),
        seeking: BTreeMap::new(),
        dials: JoinSet::new(),
        ask_hosts_at: now,
        renew_at: now + clock::jittered(RENEW_EVERY),
        remember_at: None,
        remembered: Vec::new(),
    };
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = looks.tick() => finder.look().await,
            Some(dialled) = finder.dials.join_next() => {
                if let Ok(Dialled::Static(at, reached)) = dialled {
                    finder.on_static(at, reached);
                }
            }
        }
    }
}

/// Remembers who is reachable now; before the end.
pub(crate) fn remember(links: &Links, remembered: &Remembered) {
    let hosts = links.reachable(&mut Rng::seeded(clock::seed()), REMEMBERED_MOST);
    if !hosts.is_empty()
        && let Err(error) = remembered.save(&hosts)
    {
        tracing::warn!("hosts are not remembered: {error}");
    }
}

impl Finder {
    async fn look(&mut self) {
        let now = Instant::now();
        self.keep_acquaintances(now);
        self.ask_for_hosts(now);
        self.help_swarms(now).await;
        self.remember_hosts(now).await;
    }

    fn keep_acquaintances(&mut self, now: Instant) {
        if now >= self.renew_at {
            self.renew_at = now + clock::jittered(RENEW_EVERY);
            self.acquaintances.drain(..).for_each(|link| link.release());
        }
        self.acquaintances.retain(|link| !link.is_closed());
        let mut standing = self.parts.links.all();
        standing.retain(|link| link.knows_discovery() && !self.acquaintances.contains(link));
        self.rng.shuffle(&mut standing);
        let wanted = ACQUAINTANCES.saturating_sub(self.acquaintances.len());
        for link in standing.into_iter().take(wanted) {
            link.hold();
            self.acquaintances.push(link);
            self.ask_hosts_at = now;
        }
        let lacking = ACQUAINTANCES.saturating_sub(self.acquaintances.len());
        if lacking > 0 {
            self.dial_some(now, lacking);
        }
    }

    /// Dials hosts of the settings, and of the book.
    fn dial_some(&mut self, now: Instant, lacking: usize) {
        let links = &self.parts.links;
        let due = |known: Option<PeerId>| known.is_none_or(|peer| links.standing(peer).is_none());
        for (at, (text, known, retry)) in self.statics.iter_mut().enumerate() {
            if self.dials.len() < MOST_DIALS && retry.next <= now && due(*known) {
                retry.again(now);
                let (links, text) = (links.clone(), text.clone());
                self.dials.spawn(async move { Dialled::Static(at, dial_static(&links, &text).await) });
            }
        }
        let strangers = links.some(&mut self.rng, 2 * lacking);
        let strangers: Vec<PeerId> =
            strangers.into_iter().filter(|&peer| links.standing(peer).is_none()).take(lacking).collect();
        for peer in strangers {
            if self.dials.len() < MOST_DIALS {
                let links = links.clone();
                self.dials.spawn(async move {
                    links.reach(peer).await;
                    Dialled::Known
                });
            }
        }
    }

    fn on_static(&mut self, at: usize, reached: Result<PeerId, String>) {
        let (text, known, retry) = &mut self.statics[at];
        match &reached {
            Ok(peer) => {
                tracing::info!(peer = %peer.short(), "host {text} of the settings reached");
                (*known, *retry) = (Some(*peer), Retry::at(Instant::now()));
            }
            // Once for each time that it is lost: it is tried over and over.
            Err(why) if self.parts.statics.answered(at) => {
                tracing::warn!("host {text} of the settings (peers) can't be reached: {why}");
            }
            Err(why) => tracing::debug!("host {text} of the settings can't be reached: {why}"),
        }
        self.parts.statics.note(at, reached);
    }

    fn ask_for_hosts(&mut self, now: Instant) {
        if now < self.ask_hosts_at || self.parts.links.known() >= FEW_HOSTS {
            return;
        }
        self.ask_hosts_at = now + clock::jittered(ASK_HOSTS_EVERY);
        for link in &self.acquaintances {
            link.send(PeerMessage::Discovery(DiscoveryMessage::AskHosts));
        }
    }

    async fn help_swarms(&mut self, now: Instant) {
        let lacking = self.parts.announcements.lacking(FEW_NEIGHBOURS);
        self.seeking.retain(|image, _| lacking.contains(image));
        for image in lacking {
            let retry = self.seeking.entry(image).or_insert(Retry::at(now));
            if retry.next > now {
                continue;
            }
            let guess = retry.tries >= TRIES_BEFORE_GUESSING;
            retry.again(now);
            let connected = self.parts.links.all();
            for link in connected.iter().filter(|link| link.knows_discovery()) {
                link.send(PeerMessage::Discovery(DiscoveryMessage::AskPeers { image }));
            }
            if guess && let Some(driver) = self.parts.router.driver_of(image) {
                let mut peers: Vec<PeerId> = connected.iter().map(Link::peer).collect();
                peers.extend(self.parts.links.some(&mut self.rng, GUESSES));
                // A driver that has just ended needs no candidates.
                let _ = driver.send(Event::Candidates(Source::Remembered, peers)).await;
            }
        }
    }

    async fn remember_hosts(&mut self, now: Instant) {
        let hosts = self.parts.links.reachable(&mut self.rng, REMEMBERED_MOST);
        let at = match self.remember_at {
            None if hosts.is_empty() => return,
            None => *self.remember_at.insert(now + REMEMBER_FIRST),
            Some(at) => at,
        };
        let doubled = !self.remembered.is_empty() && hosts.len() >= 2 * self.remembered.len();
        if now < at && !doubled {
            return;
        }
        self.remember_at = Some(now + clock::jittered(REMEMBER_EVERY));
        let unchanged = hosts.len() == self.remembered.len() && hosts.iter().all(|host| self.remembered.contains(host));
        if hosts.is_empty() || unchanged {
            return;
        }
        self.remembered.clone_from(&hosts);
        let remembered = self.parts.remembered.clone();
        if let Err(error) = self.parts.workers.run(move || remembered.save(&hosts)).await {
            tracing::warn!("hosts are not remembered: {error}");
        }
    }
}

impl Retry {
    fn at(next: Instant) -> Self {
        Retry { next, tries: 0 }
    }

    fn again(&mut self, now: Instant) {
        self.next = now + clock::jittered((AGAIN_LEAST * 2u32.pow(self.tries.min(10))).min(AGAIN_MOST));
        self.tries = self.tries.saturating_add(1);
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

async fn dial_static(links: &Links, text: &str) -> Result<PeerId, String> {
    let addrs = lookup_host(text).await.map_err(|error| format!("can't find {text}: {error}"))?;
    let mut problem = format!("{text} has no address");
    for addr in addrs {
        match links.reach_addr(addr, Source::Static).await {
            Ok(link) => return Ok(link.peer()),
            Err(why) => problem = why,
        }
    }
    Err(problem)
}
