//! Probes of the network: this host's own, for an administrator who asks, and its answers to those of others.
//!
//! Packets are sent and counted on threads, as in a session; what is said goes over the links that stand with other hosts.
//! One probe of each kind at a time. What it means is decided by `drover_protocol::multicast::probe`.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use drover_protocol::id::PeerId;
use drover_protocol::message::PeerMessage;
use drover_protocol::multicast::message::Announcement;
use drover_protocol::multicast::packet::{Header, Opener, Sealer, SessionId, WIRE_OVERHEAD, packet_len};
use drover_protocol::multicast::probe::{Fitness, Heard, ProbeMessage, STEP_TIME, STEPS, Sent, judge};
use drover_protocol::time::Instant;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::interface::Interface;
use super::mailbox::{Inbox, Mailbox, Wish, mailbox};
use super::socket::{GroupReceiver, GroupSender};
use super::{MulticastSettings, new_key};
use crate::clock;
use crate::transport::Link;
use drover_protocol::multicast::choice::Mode;

/// How long hosts have to say that they listen,
const READY_DEADLINE: Duration = Duration::from_secs(2);
/// and then to say what they heard.
const HEARD_DEADLINE: Duration = Duration::from_secs(2);
/// Who listens and hears no end of it goes on with other things.
const LISTEN_MOST: Duration = Duration::from_secs(15);
/// Packets that are still on their way when the last was sent.
const SETTLE: Duration = Duration::from_millis(100);
/// What is taken for the interface's rate if it does not know.
const BYTES_PER_S: u64 = 125_000_000;
/// Packets that are sent at once.
const BURST: u64 = 16;

/// The host's end of all probes. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Prober(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    me: PeerId,
    settings: MulticastSettings,
    listen: IpAddr,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The probe that this host makes, and where answers to it go.
    asking: Option<(SessionId, mpsc::UnboundedSender<(PeerId, ProbeMessage)>)>,
    /// The probe that it hears: whose, and where to tell its thread of the end.
    hearing: Option<(PeerId, SessionId, Mailbox<()>)>,
}

/// Why no probe can be made.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Another one is under way.
    #[error("another probe is under way")]
    Busy,
    /// This host's own network is not fit.
    #[error(transparent)]
    Unfit(#[from] drover_protocol::multicast::choice::Unfit),
    /// The socket fails.
    #[error("the socket for multicast fails: {0}")]
    Socket(#[from] io::Error),
}

/// What a probe found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Probed {
    /// The highest rate that was sent, in bytes per second.
    pub bytes_per_s: u64,
    /// How each host fares, in the order in which they were asked.
    pub hosts: Vec<Fitness>,
}

impl Prober {
    pub(crate) fn new(me: PeerId, settings: MulticastSettings, listen: IpAddr) -> Self {
        Prober(Arc::new(Inner { me, settings, listen, state: Mutex::default() }))
    }

    /// Sends packets to hosts for a second, and gives what each heard; `None` stands for a host without a link.
    pub(crate) async fn probe(&self, hosts: Vec<Option<Link>>) -> Result<Probed, ProbeError> {
        let (answers, mut answered) = mpsc::unbounded_channel();
        let session = SessionId(clock::seed());
        {
            let mut state = self.state();
            if state.asking.as_ref().is_some_and(|(_, answers)| !answers.is_closed()) {
                return Err(ProbeError::Busy);
            }
            state.asking = Some((session, answers));
        }
        let group = self.0.settings.groups.of(session);
        let interface = self.interface(group.ip())?;
        let symbol_len = interface.symbol_len() as u16;
        let announcement =
            Announcement { session, key: new_key(), group, source: interface.address.into(), symbol_len };
        let links: BTreeMap<PeerId, Link> = hosts.iter().flatten().map(|link| (link.peer(), link.clone())).collect();
        let mut found: BTreeMap<PeerId, Fitness> = links.keys().map(|&peer| (peer, Fitness::Unreachable)).collect();

        let tell_all = |message: &ProbeMessage| links.values().for_each(|link| tell(link, message.clone()));
        tell_all(&ProbeMessage::Begin(announcement.clone()));
        let mut ready = 0;
        let mut waiting = links.len();
        let readied = async {
            while waiting > 0
                && let Some((peer, message)) = answered.recv().await
            {
                waiting -= 1;
                match message {
                    ProbeMessage::Refused { why, .. } => _ = found.insert(peer, Fitness::Refused { why }),
                    _ => ready += 1,
                }
            }
        };
        // Who has not answered by then is not waited for.
        let _ = timeout(READY_DEADLINE, readied).await;
        let most = interface.bytes_per_s.unwrap_or(BYTES_PER_S);
        let most = self.0.settings.limit.map_or(most, |limit| limit.min(most));
        let me = self.0.me;
        let sending = tokio::task::spawn_blocking(move || send(&announcement, me, &interface, most));
        let sent = sending.await.map_err(io::Error::other)??;
        tokio::time::sleep(SETTLE).await;
        tell_all(&ProbeMessage::End { session });
        let heard = async {
            while ready > 0
                && let Some((peer, message)) = answered.recv().await
            {
                if let ProbeMessage::Heard { steps, .. } = message {
                    found.insert(peer, judge(&sent, &steps));
                    ready -= 1;
                }
            }
        };
        let _ = timeout(HEARD_DEADLINE, heard).await;
        let of = |link: &Option<Link>| link.as_ref().and_then(|link| found.get(&link.peer()).cloned());
        let hosts = hosts.iter().map(|link| of(link).unwrap_or(Fitness::Unreachable)).collect();
        Ok(Probed { bytes_per_s: sent.iter().map(|sent| sent.bytes_per_s).max().unwrap_or(0), hosts })
    }

    /// A peer said something about a probe.
    pub(crate) fn hear(&self, link: &Link, message: ProbeMessage) {
        let session = message.session();
        match message {
            ProbeMessage::Begin(announcement) => {
                if let Err(why) = self.listen(link, announcement) {
                    tell(link, ProbeMessage::Refused { session, why });
                }
            }
            ProbeMessage::End { .. } => {
                let state = self.state();
                if let Some((peer, of, bell)) = &state.hearing
                    && (*peer, *of) == (link.peer(), session)
                {
                    // A thread that has ended has nothing to say any more.
                    let _ = bell.post(());
                }
            }
            ProbeMessage::Ready { .. } | ProbeMessage::Refused { .. } | ProbeMessage::Heard { .. } => {
                if let Some((of, answers)) = &self.state().asking
                    && *of == session
                {
                    // Who asked may have given up.
                    let _ = answers.send((link.peer(), message));
                }
            }
        }
    }

    /// Takes part in a peer's probe.
    fn listen(&self, link: &Link, announcement: Announcement) -> Result<(), String> {
        if self.0.settings.mode == Mode::Off {
            return Err("its setting multicast is off".to_owned());
        }
        let session = announcement.session;
        let interface = self.interface(announcement.group.ip()).map_err(|error| error.to_string())?;
        let (bell, inbox) = mailbox().map_err(|error| error.to_string())?;
        {
            let mut state = self.state();
            if state.hearing.as_ref().is_some_and(|(_, _, bell)| bell.is_open()) {
                return Err("it hears another probe now".to_owned());
            }
            state.hearing = Some((link.peer(), session, bell));
        }
        let opened = GroupReceiver::open(&interface, announcement.group, announcement.source);
        let mut socket =
            opened.and_then(|mut socket| socket.join().map(|()| socket)).map_err(|error| error.to_string())?;
        let link = link.clone();
        let sender = link.peer();
        let counting = move || {
            tell(&link, ProbeMessage::Ready { session });
            match count(&mut socket, &inbox, &announcement, sender) {
                Ok(steps) => tell(&link, ProbeMessage::Heard { session, steps }),
                Err(error) => tracing::warn!(%error, "a probe of multicast failed"),
            }
        };
        thread::Builder::new().name("drover-mc-probe".to_owned()).spawn(counting).map_err(|error| error.to_string())?;
        Ok(())
    }

    fn interface(&self, group: IpAddr) -> Result<Interface, drover_protocol::multicast::choice::Unfit> {
        Interface::for_group(&self.0.settings, self.0.listen, group)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn tell(link: &Link, message: ProbeMessage) {
    if link.knows_multicast() {
        link.send(PeerMessage::Probe(message));
    }
}

/// Sends all steps. Blocks for their time.
fn send(announcement: &Announcement, me: PeerId, interface: &Interface, most: u64) -> io::Result<[Sent; STEPS.len()]> {
    let socket = GroupSender::open(interface, announcement.group)?;
    let (_bell, inbox) = mailbox::<()>()?;
    let mut sealer = Sealer::new(&announcement.key, me);
    let symbol = vec![0; usize::from(announcement.symbol_len)];
    let len = packet_len(symbol.len());
    let wire_len = (len + WIRE_OVERHEAD) as u64;
    let mut sequence = 0;
    let mut sent = [Sent::default(); STEPS.len()];
    for (step, (percent, sent)) in STEPS.into_iter().zip(&mut sent).enumerate() {
        let rate = (most / 100 * percent).max(1);
        let (began, mut due) = (clock::now(), clock::now());
        while clock::now().since(began) < STEP_TIME {
            let mut batch = Vec::with_capacity(len * BURST as usize);
            for _ in 0..BURST {
                sequence += 1;
                let (session, chunk) = (announcement.session, step as u32);
                sealer.seal(&Header { session, sequence, chunk, symbol: 0, k: 1, h: 0, rest: 0 }, &symbol, &mut batch);
            }
            let mut at = 0;
            while at < batch.len() {
                match socket.send(&batch[at..], len) {
                    Ok(taken) => at += taken,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        inbox.wait(socket.as_fd(), Wish::Write, STEP_TIME)?;
                    }
                    Err(error) => return Err(error),
                }
            }
            sent.packets += BURST as u32;
            due = due + Duration::from_nanos(BURST * wire_len * 1_000_000_000 / rate);
            inbox.wait(socket.as_fd(), Wish::Nothing, due.since(clock::now()))?;
        }
        let took = clock::now().since(began).as_nanos().max(1);
        sent.bytes_per_s = (u128::from(sent.packets) * u128::from(wire_len) * 1_000_000_000 / took) as u64;
    }
    Ok(sent)
}

/// Counts what comes until the end is told. Blocks.
fn count(
    socket: &mut GroupReceiver,
    inbox: &Inbox<()>,
    announcement: &Announcement,
    sender: PeerId,
) -> io::Result<[Heard; STEPS.len()]> {
    let Announcement { key, session, source, symbol_len, .. } = announcement;
    let mut opener = Opener::new(key, *session, sender, *source, usize::from(*symbol_len));
    let mut steps = [Heard::default(); STEPS.len()];
    let (until, mut dropped, mut step): (Instant, u64, usize) = (clock::now() + LISTEN_MOST, 0, 0);
    while inbox.next().is_none() && clock::now() < until {
        inbox.wait(socket.as_fd(), Wish::Read, until.since(clock::now()))?;
        while socket.receive(|from, packet| {
            let Ok((header, _)) = opener.open(from, packet) else { return };
            if let Some(heard) = steps.get_mut(header.chunk as usize) {
                heard.received += 1;
                step = header.chunk as usize;
            }
        })? {}
        // What is dropped counts to the step that was heard last.
        let now = socket.dropped();
        steps[step].dropped += now.saturating_sub(dropped) as u32;
        dropped = now;
    }
    Ok(steps)
}
