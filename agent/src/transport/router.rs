//! Which task exchanges which image: where what comes from the network goes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use drover_protocol::id::{ImageId, PeerId};
use drover_protocol::message::{DataRequest, SwarmMessage};
use quinn::SendStream;
use tokio::sync::mpsc;

use super::link::Link;

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
    /// Peers that may exchange the image, by a tracker or another peer; their addresses are in the book.
    Candidates(Vec<PeerId>),
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

    /// Everybody.
    pub(crate) fn drivers(&self) -> Vec<mpsc::Sender<Event>> {
        self.table().values().cloned().collect()
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<ImageId, mpsc::Sender<Event>>> {
        self.drivers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
