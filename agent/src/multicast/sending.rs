//! A session that this host sends: a thread that owns a `Sender` and the group's socket, and one beside it that reads and encodes.
//!
//! The loop is: take what was posted, let the machine plan what is due, seal it into a batch, hand that to the socket, wait until the
//! next is due. If the interface is behind, so is the thread, and the machine plans no more meanwhile: what a link can't carry is
//! never lost here. Chunks are loaded one pass ahead, so that neither the disk nor the code keeps a packet waiting.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use drover_protocol::geometry::ChunkIndex;
use drover_protocol::id::PeerId;
use drover_protocol::multicast::config::SenderConfig;
use drover_protocol::multicast::fec::{Codes, EncodedBlock};
use drover_protocol::multicast::message::{Announcement, EndReason, MulticastMessage};
use drover_protocol::multicast::packet::{Header, Sealer, packet_len};
use drover_protocol::multicast::sender::{Output, Sender, SenderStatus};

use super::interface::Interface;
use super::mailbox::{Inbox, Mailbox, Wish, mailbox};
use super::socket::GroupSender;
use crate::clock;
use crate::store::{Image, ReadError};

/// What a session's thread hears from the image's driver.
#[derive(Debug)]
pub(crate) enum Order {
    /// A connected host lacks some of the image.
    Candidate(PeerId),
    /// A host said something.
    Message(PeerId, MulticastMessage),
    /// The connection to a host is gone.
    Disconnected(PeerId),
    /// Send no more.
    Stop,
}

/// What the driver hears from it.
#[derive(Debug)]
pub(crate) enum Report {
    /// Send this to a host.
    Send(PeerId, MulticastMessage),
    /// The session is over. The last report.
    Ended(EndReason),
}

/// What is needed to send.
pub(crate) struct Parts {
    pub(crate) announcement: Announcement,
    pub(crate) me: PeerId,
    pub(crate) image: Arc<Image>,
    pub(crate) interface: Interface,
    pub(crate) config: SenderConfig,
}

/// A session that this host sends. Dropping it ends the threads.
#[derive(Debug)]
pub(crate) struct Sending {
    orders: Mailbox<Order>,
    status: Arc<Mutex<SenderStatus>>,
}

impl Sending {
    /// Starts the threads. `report` is called on one of them, and may wait.
    pub(crate) fn start<R>(parts: Parts, report: R) -> io::Result<Self>
    where
        R: Fn(Report) + Clone + Send + 'static,
    {
        let Parts { announcement, me, image, interface, config } = parts;
        let socket = GroupSender::open(&interface, announcement.group)?;
        let (orders, inbox) = mailbox()?;
        let status = Arc::default();
        let symbol_len = usize::from(announcement.symbol_len);
        let loader = Loader::start(image.clone(), symbol_len)?;
        let (now, seed, manifest) = (clock::now(), clock::seed(), image.manifest());
        let (session, rate) = (announcement.session.0, config.link_bytes_per_s);
        tracing::info!(image = %image.id().short(), session, group = %announcement.group, rate, seed, "sending by multicast");
        let session = Session {
            sealer: Sealer::new(&announcement.key, me),
            machine: Sender::new(now, announcement, manifest.geometry(), manifest.data_chunks(), config, seed),
            image,
            socket,
            inbox,
            loader,
            report,
            status: Arc::clone(&status),
            packet_len: packet_len(symbol_len),
            batch: Vec::new(),
        };
        thread::Builder::new().name("drover-mc-send".to_owned()).spawn(move || session.run())?;
        Ok(Sending { orders, status })
    }

    /// Tells the thread something; `false` if it has ended.
    pub(crate) fn tell(&self, order: Order) -> bool {
        self.orders.post(order)
    }

    pub(crate) fn status(&self) -> SenderStatus {
        *self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        // If it has ended already, there is nothing to stop.
        let _ = self.orders.post(Order::Stop);
    }
}

/// Tells the driver of the end, also if a broken invariant ends the thread.
struct Farewell<R: Fn(Report)> {
    report: R,
    reason: EndReason,
}

impl<R: Fn(Report)> Drop for Farewell<R> {
    fn drop(&mut self) {
        (self.report)(Report::Ended(self.reason));
    }
}

struct Session<R> {
    machine: Sender,
    sealer: Sealer,
    image: Arc<Image>,
    socket: GroupSender,
    inbox: Inbox<Order>,
    loader: Loader,
    report: R,
    status: Arc<Mutex<SenderStatus>>,
    packet_len: usize,
    /// Packets that are sealed and not yet sent.
    batch: Vec<u8>,
}

/// Why a session can't go on.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("the socket fails: {0}")]
    Socket(#[from] io::Error),
    #[error("the image can't be read: {0}")]
    Read(#[from] ReadError),
}

impl<R: Fn(Report) + Clone> Session<R> {
    fn run(mut self) {
        let mut farewell = Farewell { report: self.report.clone(), reason: EndReason::Stopped };
        let reason = self.send().unwrap_or_else(|error| {
            tracing::warn!(image = %self.image.id().short(), %error, "a multicast session failed");
            // Members are told.
            self.machine.handle_stop();
            while let Some(output) = self.machine.poll_output() {
                if let Output::Send { peer, message } = output {
                    (self.report)(Report::Send(peer, message));
                }
            }
            EndReason::Stopped
        });
        let status = self.machine.status();
        tracing::info!(image = %self.image.id().short(), ?reason, ?status, "multicast session over");
        farewell.reason = reason;
    }

    fn send(&mut self) -> Result<EndReason, SendError> {
        loop {
            while let Some(order) = self.inbox.next() {
                let now = clock::now();
                match order {
                    Order::Candidate(peer) => self.machine.handle_candidate(peer),
                    Order::Message(peer, message) => self.machine.handle_message(now, peer, message),
                    Order::Disconnected(peer) => self.machine.handle_disconnected(now, peer),
                    Order::Stop => self.machine.handle_stop(),
                }
                if let Some(reason) = self.obey()? {
                    return Ok(reason);
                }
            }
            if self.machine.poll_timeout().is_some_and(|due| due <= clock::now()) {
                self.machine.handle_timeout(clock::now());
                *self.status.lock().unwrap_or_else(PoisonError::into_inner) = self.machine.status();
                if let Some(reason) = self.obey()? {
                    return Ok(reason);
                }
            }
            let due = self.machine.poll_timeout().unwrap_or_default();
            self.inbox.wait(self.socket.as_fd(), Wish::Nothing, due.since(clock::now()))?;
        }
    }

    /// Does what the machine asks for, and sends what that gave.
    fn obey(&mut self) -> Result<Option<EndReason>, SendError> {
        let mut ended = None;
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Send { peer, message } => {
                    // A beat tells of packets that were sent before it.
                    self.flush()?;
                    (self.report)(Report::Send(peer, message));
                }
                Output::Load { chunk, parity } => self.loader.load(chunk, parity),
                Output::Transmit { header } => self.seal(&header)?,
                Output::Unload { chunk } => self.loader.unload(chunk),
                Output::Ended { reason } => ended = Some(reason),
            }
        }
        self.flush()?;
        Ok(ended)
    }

    /// Sends what is sealed, as fast as the interface takes it.
    fn flush(&mut self) -> io::Result<()> {
        let mut sent = 0;
        while sent < self.batch.len() {
            match self.socket.send(&self.batch[sent..], self.packet_len) {
                Ok(len) => sent += len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.inbox.wait(self.socket.as_fd(), Wish::Write, STALL)?;
                }
                Err(error) => return Err(error),
            }
        }
        self.batch.clear();
        Ok(())
    }

    fn seal(&mut self, header: &Header) -> Result<(), SendError> {
        let block = self.loader.block(header.chunk)?;
        let symbol = block.symbol(header.symbol).expect("as many parity symbols were asked for as are sent");
        self.sealer.seal(header, symbol, &mut self.batch);
        Ok(())
    }
}

/// Chunks that are sent or about to be, with their parity.
struct Loader {
    jobs: SyncSender<(ChunkIndex, u8)>,
    done: Receiver<(ChunkIndex, Result<EncodedBlock, ReadError>)>,
    blocks: BTreeMap<u32, EncodedBlock>,
}

impl Loader {
    /// Starts the thread that reads and encodes; it ends with the loader.
    fn start(image: Arc<Image>, symbol_len: usize) -> io::Result<Self> {
        let (jobs, queue) = sync_channel::<(ChunkIndex, u8)>(JOBS_MOST);
        let (results, done) = sync_channel(JOBS_MOST);
        thread::Builder::new().name("drover-mc-load".to_owned()).spawn(move || {
            let (mut codes, geometry) = (Codes::default(), image.manifest().geometry());
            let mut room = vec![0; drover_protocol::geometry::CHUNK_LEN as usize];
            while let Ok((chunk, parity)) = queue.recv() {
                let bytes = &mut room[..geometry.chunk_len(chunk) as usize];
                let encoded = image.read(chunk, bytes).map(|()| codes.encode(bytes, symbol_len, parity));
                if results.send((chunk, encoded)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Loader { jobs, done, blocks: BTreeMap::new() })
    }

    fn load(&mut self, chunk: ChunkIndex, parity: u8) {
        self.jobs.send((chunk, parity)).expect("the loading thread lives as long as its queue");
    }

    fn unload(&mut self, chunk: ChunkIndex) {
        self.blocks.remove(&chunk.number());
    }

    /// A block that was to be loaded, as soon as it is.
    fn block(&mut self, chunk: u32) -> Result<&EncodedBlock, ReadError> {
        while !self.blocks.contains_key(&chunk) {
            let (loaded, block) = self.done.recv().expect("what was to be loaded comes");
            self.blocks.insert(loaded.number(), block?);
        }
        Ok(&self.blocks[&chunk])
    }
}

/// Two passes are loaded at a time: what is sent, and what follows.
const JOBS_MOST: usize = 256;
/// An interface that takes nothing for so long is looked at again.
const STALL: Duration = Duration::from_millis(100);
