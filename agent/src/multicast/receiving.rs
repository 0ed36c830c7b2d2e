//! A session that this host hears: a thread that owns a `Receiver`, the group's socket and the symbols of incomplete blocks.
//!
//! The loop is: take what was posted, take what came, do what the machine asks for, wait. Decoded blocks are handed to the disk's
//! workers sixteen at a time, as chunks that peers send are, and as long as there is room in the same pool of buffers; what
//! waits for room stays a block. So this thread never waits for a disk, and a disk that is behind shows in the reports.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use drover_protocol::geometry::{CHUNK_LEN, ChunkIndex};
use drover_protocol::id::PeerId;
use drover_protocol::multicast::config::ReceiverConfig;
use drover_protocol::multicast::fec::BlockPool;
use drover_protocol::multicast::message::{Announcement, MulticastMessage};
use drover_protocol::multicast::packet::Opener;
use drover_protocol::multicast::receiver::{AwayReason, Fate, Output, Receiver, ReceiverStatus};
use drover_protocol::pacing::Meter;
use drover_protocol::time::Instant;

use super::interface::Interface;
use super::mailbox::{Inbox, Mailbox, Wish, mailbox};
use super::socket::GroupReceiver;
use crate::clock;
use crate::store::Image;
use crate::transfer::buffers::{Buffer, Buffers};
use crate::transfer::ingest::{Batch, store};
use crate::transfer::workers::Workers;

/// What a session's thread hears from the image's driver.
#[derive(Debug)]
pub(crate) enum Order {
    /// The sender said something.
    Message(MulticastMessage),
    /// A chunk is stored, by whatever way it came.
    Stored(ChunkIndex),
    /// A decoded block was not what the manifest says.
    Rejected(ChunkIndex),
    /// The connection to the sender is gone.
    SenderGone,
    /// Take part no longer.
    Stop,
}

/// What the driver hears from it.
#[derive(Debug)]
pub(crate) enum Report {
    /// Send this to the session's sender.
    Send(MulticastMessage),
    /// Decoded blocks were looked at.
    Came(Batch),
    /// Whether multicast brings what is lacking.
    Carries(bool),
    /// It won't bring these chunks.
    Missed(Vec<ChunkIndex>),
    /// This host does not listen now, for this reason.
    Away(AwayReason),
    /// The session is over for this host. The last report.
    Over,
}

/// What is needed to take part.
pub(crate) struct Parts {
    pub(crate) announcement: Announcement,
    pub(crate) sender: PeerId,
    pub(crate) image: Arc<Image>,
    pub(crate) interface: Interface,
    pub(crate) buffers: Buffers,
    pub(crate) workers: Workers,
}

/// A session that this host takes part in. Dropping it ends the thread.
#[derive(Debug)]
pub(crate) struct Receiving {
    orders: Mailbox<Order>,
    status: Arc<Mutex<ReceiverStatus>>,
}

impl Receiving {
    /// Joins the group and starts the thread. `report` is called on it and on workers' threads, and may wait.
    pub(crate) fn start<R>(parts: Parts, report: R) -> io::Result<Self>
    where
        R: Fn(Report) + Clone + Send + 'static,
    {
        let Announcement { group, source, .. } = parts.announcement;
        let socket = GroupReceiver::open(&parts.interface, group, source)?;
        let (orders, inbox) = mailbox()?;
        let status = Arc::default();
        let session = Session::new(parts, socket, inbox, Arc::clone(&status), report);
        thread::Builder::new().name("drover-mc-recv".to_owned()).spawn(move || {
            let _farewell = Farewell(session.report.clone());
            session.run();
        })?;
        Ok(Receiving { orders, status })
    }

    /// Tells the thread something; `false` if it has ended.
    pub(crate) fn tell(&self, order: Order) -> bool {
        self.orders.post(order)
    }

    pub(crate) fn status(&self) -> ReceiverStatus {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        // If it has ended already, there is nothing to stop.
        let _ = self.orders.post(Order::Stop);
    }
}

/// Tells the driver of the end, also if a broken invariant ends the thread: peers are asked again in any case.
struct Farewell<R: Fn(Report)>(R);

impl<R: Fn(Report)> Drop for Farewell<R> {
    fn drop(&mut self) {
        (self.0)(Report::Carries(false));
        (self.0)(Report::Over);
    }
}

struct Session<R> {
    machine: Receiver,
    opener: Opener,
    pool: BlockPool,
    image: Arc<Image>,
    socket: GroupReceiver,
    inbox: Inbox<Order>,
    buffers: Buffers,
    workers: Workers,
    report: R,
    status: Arc<Mutex<ReceiverStatus>>,
    /// Blocks to be decoded.
    complete: VecDeque<ChunkIndex>,
    /// Bytes with the workers, and bytes that they have written.
    unwritten: Arc<AtomicU64>,
    written: Arc<AtomicU64>,
    drain: Meter,
    drained: u64,
    /// Packets that found no room, as far as the machine knows.
    dropped: u64,
    next_look: Instant,
    next_join: Instant,
    is_listening: bool,
}

impl<R: Fn(Report) + Clone + Send + 'static> Session<R> {
    fn new(
        parts: Parts,
        socket: GroupReceiver,
        inbox: Inbox<Order>,
        status: Arc<Mutex<ReceiverStatus>>,
        report: R,
    ) -> Self {
        let Parts { announcement, sender, image, interface, buffers, workers } = parts;
        let Announcement { session, key, source, symbol_len, .. } = &announcement;
        let manifest = image.manifest();
        let config =
            ReceiverConfig { link_bytes_per_s: interface.bytes_per_s.unwrap_or(0), ..ReceiverConfig::default() };
        let (now, seed, symbol_len) = (clock::now(), clock::seed(), usize::from(*symbol_len));
        tracing::info!(image = %image.id().short(), session = session.0, sender = %sender.short(), seed, "multicast begins");
        let (geometry, data) = (manifest.geometry(), manifest.data_chunks());
        Session {
            machine: Receiver::new(now, &announcement, geometry, data, image.held(), config, seed),
            opener: Opener::new(key, *session, sender, *source, symbol_len),
            pool: BlockPool::new(symbol_len),
            image,
            socket,
            inbox,
            buffers,
            workers,
            report,
            status,
            complete: VecDeque::new(),
            unwritten: Arc::default(),
            written: Arc::default(),
            drain: Meter::default(),
            drained: 0,
            dropped: 0,
            next_look: now,
            next_join: now,
            is_listening: false,
        }
    }

    fn run(mut self) {
        let ended = self.take_part();
        let status = self.machine.status();
        match ended {
            Ok(()) => tracing::info!(image = %self.image.id().short(), ?status, "multicast is over"),
            Err(error) => tracing::warn!(image = %self.image.id().short(), ?status, %error, "multicast failed"),
        }
        self.show(status);
    }

    fn show(&self, status: ReceiverStatus) {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }

    fn take_part(&mut self) -> io::Result<()> {
        self.obey()?;
        while let Some(due) = self.machine.poll_timeout() {
            let wish = if self.is_listening { Wish::Read } else { Wish::Nothing };
            // What waits for room is tried again soon.
            let due = if self.complete.is_empty() { due } else { due.min(clock::now() + ROOM_WAIT) };
            self.inbox.wait(self.socket.as_fd(), wish, due.min(self.next_look).since(clock::now()))?;
            while let Some(order) = self.inbox.next() {
                self.hear(order);
                self.obey()?;
            }
            if self.is_listening {
                self.receive()?;
            }
            self.look(clock::now())?;
            if self.machine.poll_timeout().is_some_and(|due| due <= clock::now()) {
                self.machine.handle_timeout(clock::now());
            }
            self.obey()?;
        }
        Ok(())
    }

    fn hear(&mut self, order: Order) {
        match order {
            Order::Message(message) => self.machine.handle_message(clock::now(), &message),
            Order::Stored(chunk) => self.machine.handle_stored(chunk),
            Order::Rejected(chunk) => self.machine.handle_rejected(chunk),
            Order::SenderGone => self.machine.handle_sender_gone(),
            Order::Stop => self.machine.handle_stop(),
        }
    }

    /// Takes in what has come.
    fn receive(&mut self) -> io::Result<()> {
        for _ in 0..BATCHES_AT_ONCE {
            let now = clock::now();
            let Session { socket, opener, machine, pool, .. } = self;
            let came = socket.receive(|from, packet| {
                let Ok((header, symbol)) = opener.open(from, packet) else { return };
                if machine.handle_packet(now, &header) == Fate::Keep {
                    pool.insert(header.chunk, header.k, header.symbol, symbol);
                }
            })?;
            if !came {
                break;
            }
            self.obey()?;
        }
        Ok(())
    }

    /// Looks, a few times a second, at what no packet and no message tells of.
    fn look(&mut self, now: Instant) -> io::Result<()> {
        if now < self.next_look {
            return Ok(());
        }
        self.next_look = now + LOOK_INTERVAL;
        let dropped = if self.is_listening { self.socket.dropped() } else { self.dropped };
        self.machine.handle_dropped(dropped.saturating_sub(self.dropped));
        self.dropped = dropped;
        let written = self.written.load(Ordering::Relaxed);
        self.drain.add(now, written - self.drained);
        self.drained = written;
        let waiting = self.complete.len() as u64 * u64::from(CHUNK_LEN);
        self.machine.handle_backlog(now, self.unwritten.load(Ordering::Relaxed) + waiting, self.drain.rate());
        if self.is_listening && self.next_join <= now {
            self.next_join = now + REJOIN_INTERVAL;
            self.socket.join()?;
        }
        self.show(self.machine.status());
        Ok(())
    }

    fn obey(&mut self) -> io::Result<()> {
        let mut missed = Vec::new();
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::JoinGroup => {
                    self.socket.join()?;
                    (self.is_listening, self.next_join) = (true, clock::now() + REJOIN_INTERVAL);
                }
                Output::LeaveGroup { reason } => {
                    self.socket.leave();
                    self.is_listening = false;
                    tracing::info!(image = %self.image.id().short(), ?reason, "not listening to multicast");
                    (self.report)(Report::Away(reason));
                }
                Output::Send(message) => (self.report)(Report::Send(message)),
                Output::Decode { chunk } => self.complete.push_back(chunk),
                Output::Forget { chunk } => {
                    self.complete.retain(|&complete| complete != chunk);
                    self.pool.forget(chunk.number());
                }
                Output::LeaveToPeers { chunk } => missed.push(chunk),
                Output::Carries(carries) => (self.report)(Report::Carries(carries)),
            }
        }
        if !missed.is_empty() {
            (self.report)(Report::Missed(missed));
        }
        self.hand_over();
        Ok(())
    }

    /// Has workers verify and write what is complete, as far as there is room.
    fn hand_over(&mut self) {
        while !self.complete.is_empty() {
            let mut chunks: Vec<(ChunkIndex, Buffer)> = Vec::new();
            while chunks.len() < BATCH_MOST
                && let Some(&chunk) = self.complete.front()
            {
                let len = self.image.manifest().geometry().chunk_len(chunk);
                let Some(mut buffer) = self.buffers.try_take(len) else { break };
                self.complete.pop_front();
                let bytes = self.pool.decode(chunk.number(), len).expect("the machine counted its symbols");
                buffer.as_mut().copy_from_slice(&bytes);
                chunks.push((chunk, buffer));
            }
            if chunks.is_empty() {
                return;
            }
            let len = chunks.iter().map(|(_, buffer)| buffer.as_ref().len() as u64).sum();
            self.unwritten.fetch_add(len, Ordering::Relaxed);
            let (image, report) = (self.image.clone(), self.report.clone());
            let (unwritten, written) = (self.unwritten.clone(), self.written.clone());
            // Nobody waits for its end but the counts.
            drop(self.workers.begin(move || {
                let batch = store(&image, chunks);
                unwritten.fetch_sub(len, Ordering::Relaxed);
                written.fetch_add(len, Ordering::Relaxed);
                report(Report::Came(batch));
            }));
        }
    }
}

/// Batches of packets that are taken in before messages are looked at again.
const BATCHES_AT_ONCE: usize = 16;
/// Chunks that are verified and written by one job at most: as many as are interleaved.
const BATCH_MOST: usize = 16;
/// A disk that pauses does so for some milliseconds.
const ROOM_WAIT: Duration = Duration::from_millis(5);
/// Twice in the time between two reports.
const LOOK_INTERVAL: Duration = Duration::from_millis(125);
/// Switches without a querier forget who has joined after four minutes.
const REJOIN_INTERVAL: Duration = Duration::from_secs(60);
