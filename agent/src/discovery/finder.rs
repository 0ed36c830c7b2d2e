//! The task that keeps this host part of its fleet, whether a tracker answers or not.
//!
//! It holds links with a few hosts, whatever they exchange: its acquaintances. By them releases come here, and the names
//! of other hosts; a few links at random from each host make one connected whole of any fleet. It finds them among the
//! links that stand anyway, in the address book, and at the addresses of the settings. Now and then one of them gives way to
//! a host that this one was connected with once and is not now: so parts of a fleet that lost each other grow together
//! again, though each has all the links that it needs.
//!
//! For each image that is not complete and has few neighbours it asks everybody who is connected, ever more rarely.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use drover_protocol::discovery::DiscoveryMessage;
use drover_protocol::hints::{FEW_NEIGHBOURS, Source};
use drover_protocol::id::{ImageId, PeerId};
use drover_protocol::message::PeerMessage;
use drover_protocol::rng::Rng;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Announcements;
use super::remembered::{REMEMBERED_MOST, Remembered};
use super::retry::Retry;
use super::room::{Room, spare};
use super::statics::{StaticPeers, Visits};
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
/// How often a host that was met before is visited, and takes the place of an acquaintance.
const VISIT_EVERY: Duration = Duration::from_secs(60);
/// After so many questions in vain, hosts of the book are tried for an image at random, so many at a time.
const TRIES_BEFORE_GUESSING: u32 = 1;
const GUESSES: usize = 16;
/// How soon after the first host was reached hosts are remembered, and how often after that; also as soon as there are
/// twice as many.
const REMEMBER_FIRST: Duration = Duration::from_secs(2);
const REMEMBER_EVERY: Duration = Duration::from_secs(300);
/// Dials of this task at a time.
const MOST_DIALS: usize = 8;

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

struct Finder {
    parts: Parts,
    rng: Rng,
    acquaintances: Vec<Link>,
    statics: Visits,
    room: Room,
    seeking: BTreeMap<ImageId, Retry>,
    dials: JoinSet<()>,
    /// The dial of a host that is to be an acquaintance, whoever else is one.
    visit: JoinSet<Option<Link>>,
    ask_hosts_at: Instant,
    visit_at: Instant,
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
        statics: Visits::of(parts.statics.clone()),
        room: Room::default(),
        parts,
        rng: Rng::seeded(clock::seed()),
        acquaintances: Vec::new(),
        seeking: BTreeMap::new(),
        dials: JoinSet::new(),
        visit: JoinSet::new(),
        ask_hosts_at: now,
        visit_at: now + clock::jittered(VISIT_EVERY),
        remember_at: None,
        remembered: Vec::new(),
    };
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = looks.tick() => finder.look().await,
            () = finder.statics.next() => {}
            Some(_) = finder.dials.join_next() => {}
            Some(met) = finder.visit.join_next() => {
                if let Ok(Some(link)) = met {
                    finder.on_met(link);
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
        self.room.make(now, &mut self.rng, &self.parts.links, &self.acquaintances);
        self.ask_for_hosts(now);
        self.help_swarms(now).await;
        self.remember_hosts(now).await;
    }

    fn keep_acquaintances(&mut self, now: Instant) {
        self.acquaintances.retain(|link| !link.is_closed());
        let mut standing = self.parts.links.all();
        standing.retain(|link| link.knows_discovery() && !self.acquaintances.contains(link));
        self.rng.shuffle(&mut standing);
        let most = self.most_acquaintances();
        let wanted = most.saturating_sub(self.acquaintances.len());
        for link in standing.into_iter().take(wanted) {
            link.hold();
            self.acquaintances.push(link);
            self.ask_hosts_at = now;
        }
        let lacking = most.saturating_sub(self.acquaintances.len());
        self.statics.dial(&self.parts.links, lacking > 0, MOST_DIALS);
        if lacking > 0 {
            self.dial_some(lacking);
        }
        if now >= self.visit_at && self.visit.is_empty() {
            self.visit_at = now + clock::jittered(VISIT_EVERY);
            self.visit_one();
        }
    }

    /// How many links this host holds for their own sake: never those places that are for newcomers.
    fn most_acquaintances(&self) -> usize {
        let (_, places) = self.parts.links.places();
        ACQUAINTANCES.min(places - spare(places))
    }

    /// Dials hosts of the book.
    fn dial_some(&mut self, lacking: usize) {
        let links = &self.parts.links;
        let strangers = links.some(&mut self.rng, 2 * lacking);
        for peer in strangers.into_iter().filter(|&peer| links.standing(peer).is_none()).take(lacking) {
            if self.dials.len() < MOST_DIALS {
                let links = links.clone();
                self.dials.spawn(async move {
                    links.reach(peer).await;
                });
            }
        }
    }

    /// Dials a host that this one was connected with once and is not now.
    fn visit_one(&mut self) {
        let links = self.parts.links.clone();
        let met = links.met(&mut self.rng);
        if let Some(peer) = met.into_iter().find(|&peer| links.standing(peer).is_none()) {
            self.visit.spawn(async move { links.reach(peer).await });
        }
    }

    /// A host that was visited takes the place of an acquaintance, if there is no room.
    fn on_met(&mut self, link: Link) {
        if !link.knows_discovery() || self.acquaintances.contains(&link) {
            return;
        }
        if self.acquaintances.len() >= self.most_acquaintances() {
            let at = self.rng.below(self.acquaintances.len() as u32) as usize;
            self.acquaintances.swap_remove(at).release();
        }
        link.hold();
        self.acquaintances.push(link);
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
            if !retry.is_due(now) {
                continue;
            }
            let guess = retry.tries() >= TRIES_BEFORE_GUESSING;
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
