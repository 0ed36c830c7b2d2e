//! Which task exchanges which image: where what comes from the network goes. What is about no image is about probes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use drover_protocol::hints::Source;
use drover_protocol::id::{ImageId, PeerId};
use drover_protocol::message::{DataRequest, SwarmMessage};
use drover_protocol::multicast::message::MulticastMessage;
use quinn::SendStream;
use tokio::sync::mpsc;

use super::link::Link;
use crate::multicast::probe::Prober;

/// Events that wait for one driver. A link whose driver is this far behind is not read from.
const INBOX_LEN: usize = 256;

/// What the network has for the driver of an image.
#[derive(Debug)]
pub(crate) enum Event {
    /// A peer said something about the image.
    Message {
        /// The link it came by.
        link: Link,
        /// What.
        message: SwarmMessage,
    },
    /// A peer said something about a multicast session of the image.
    Multicast {
        /// The link it came by.
        link: Link,
        /// What.
        message: MulticastMessage,
    },
    /// Peers that may exchange the image, as this source told; their addresses are in the book.
    Candidates(Source, Vec<PeerId>),
    /// A peer wants to know who exchanges the image.
    AskedPeers(Link),
    /// A peer asks for bytes.
    Asked(Asked),
    /// A link is gone. Sent to every driver, whether it knew the link or not.
    Disconnected(Link),
}

/// A data stream that a peer opened, with its request read.
#[derive(Debug)]
pub(crate) struct Asked {
    /// The link it is on.
    pub link: Link,
    /// What the peer wants.
    pub request: DataRequest,
    /// Where the answer goes.
    pub send: SendStream,
}

/// The drivers by their image. Clones share the table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Router {
    drivers: Arc<Mutex<BTreeMap<ImageId, mpsc::Sender<Event>>>>,
    prober: Arc<OnceLock<Prober>>,
}

impl Router {
    /// Events about `image` go to the receiver from now on, until it is dropped or another is registered.
    pub(crate) fn register(&self, image: ImageId) -> mpsc::Receiver<Event> {
        let (sender, receiver) = mpsc::channel(INBOX_LEN);
        self.table().insert(image, sender);
        receiver
    }

    /// Who exchanges `image`.
    pub(crate) fn driver_of(&self, image: ImageId) -> Option<mpsc::Sender<Event>> {
        let mut table = self.table();
        if table.get(&image)?.is_closed() {
            table.remove(&image);
        }
        table.get(&image).cloned()
    }

    /// What peers say about probes goes there from now on.
    pub(crate) fn set_prober(&self, prober: Prober) {
        // A router serves one exchange, which has one.
        let _ = self.prober.set(prober);
    }

    /// Who makes and answers probes.
    pub(crate) fn prober(&self) -> Option<&Prober> {
        self.prober.get()
    }

    /// Everybody.
    pub(crate) fn drivers(&self) -> Vec<mpsc::Sender<Event>> {
        self.table().values().cloned().collect()
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<ImageId, mpsc::Sender<Event>>> {
        self.drivers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
