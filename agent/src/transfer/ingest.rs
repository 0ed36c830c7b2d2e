//! A chunk's way in: from the stream into a pooled buffer, verified, written, reported.
//!
//! While workers verify and write one batch of a request, the next is read. A batch is up to [`BATCH_MOST`] chunks, since
//! waking a worker and being woken cost as much as hashing a chunk; but no chunk waits longer than [`PATIENCE`] for
//! others, so that on a slow wire each is reported as soon as it is there. Workers report themselves, so what was written
//! is reported even when the request is cancelled meanwhile.
//!
//! A request that waits for a buffer holds none that is not being written, so requests can't wait for each other.

use core::ops::Range;
use core::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use drover_link::frame::read_frame;
use drover_protocol::geometry::{ChunkIndex, PieceIndex};
use drover_protocol::message::{DataReply, DataRequest};
use drover_protocol::swarm::RequestEnd;
use futures_util::FutureExt as _;
use quinn::RecvStream;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::buffers::{Buffer, Buffers};
use super::pages;
use super::workers::Workers;
use crate::store::{Image, WriteError};
use crate::transport::Link;

/// Chunks that are verified and written by one job at most (1 MiB).
const BATCH_MOST: usize = 16;
/// How long a chunk waits for others to be verified and written with. At 10 Gbit/s a full batch comes in half of it; at
/// 100 Mbit/s it is a third of what a chunk takes.
const PATIENCE: Duration = Duration::from_millis(2);
/// A peer that does not even answer by then is given up. The swarm is quicker to ask elsewhere.
const REPLY_DEADLINE: Duration = Duration::from_secs(10);

/// A request of ours: whom to ask for what, and what is needed to take it in.
#[derive(Debug)]
pub(crate) struct Fetch {
    /// Whom.
    pub link: Link,
    /// Where it goes.
    pub image: Arc<Image>,
    /// Which piece.
    pub piece: PieceIndex,
    /// Numbers of the chunks within the image, rising and apart.
    pub chunks: Vec<Range<u32>>,
    /// Room for what arrives.
    pub buffers: Buffers,
    /// Who verifies and writes.
    pub workers: Workers,
}

/// What became of chunks that arrived.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// Verified and written.
    pub stored: Vec<ChunkIndex>,
    /// Not what the manifest says.
    pub rejected: Vec<ChunkIndex>,
    /// The first that is right but that the disk did not take; those after it were not tried.
    pub refused: Option<Refused>,
}

/// A chunk that the disk did not take.
#[derive(Debug)]
pub(crate) struct Refused {
    /// Which.
    pub chunk: ChunkIndex,
    /// Its bytes, to try again with.
    pub buffer: Buffer,
    /// What the disk said.
    pub error: WriteError,
}

impl Fetch {
    /// Asks, and takes in what comes. `report` is called on a worker's thread for each batch; all those calls have
    /// returned when this does. `None` if `cancel` came first.
    pub(crate) async fn run<R>(self, report: R, cancel: oneshot::Receiver<()>) -> Option<RequestEnd>
    where
        R: Fn(Batch) + Clone + Send + 'static,
    {
        let mut pipeline = Pipeline::new(&self, report);
        let end = tokio::select! {
            end = self.take_in(&mut pipeline) => Some(end),
            // Cancelled, or the driver is gone.
            _ = cancel => None,
        };
        pipeline.finish().await;
        end
    }

    async fn take_in<R: Fn(Batch) + Clone + Send + 'static>(&self, pipeline: &mut Pipeline<'_, R>) -> RequestEnd {
        let geometry = self.image.manifest().geometry();
        let ranges = pages::to_pages(&geometry, self.piece, &self.chunks);
        let request = DataRequest::Pages { image: self.image.id(), piece: self.piece.number(), ranges };
        let Some(mut stream) = self.link.ask(&request).await else { return RequestEnd::Failed };
        match timeout(REPLY_DEADLINE, read_frame::<DataReply>(&mut stream)).await {
            Ok(Ok(Some(DataReply::Accepted { len }))) if len == pages::bytes_in(&geometry, &self.chunks) => {}
            Ok(Ok(Some(DataReply::Busy { retry_after_ms, instead }))) => {
                let retry_after = Duration::from_millis(u64::from(retry_after_ms));
                return RequestEnd::Busy { retry_after, instead };
            }
            Ok(Ok(Some(DataReply::NotHeld))) => return RequestEnd::NotHeld,
            _ => return RequestEnd::Failed,
        }
        for chunk in self.chunks.iter().cloned().flatten().filter_map(|number| geometry.chunk(number)) {
            let Some(buffer) = pipeline.read(&mut stream, geometry.chunk_len(chunk)).await else {
                return RequestEnd::Failed;
            };
            pipeline.push(chunk, buffer).await;
        }
        RequestEnd::Done
    }
}

/// Chunks of one request between stream and disk.
struct Pipeline<'a, R> {
    fetch: &'a Fetch,
    report: R,
    gathered: Vec<(ChunkIndex, Buffer)>,
    writing: Option<oneshot::Receiver<()>>,
    /// Fires when what is gathered has waited long enough for more to come.
    patience: Pin<Box<Sleep>>,
}

impl<'a, R: Fn(Batch) + Clone + Send + 'static> Pipeline<'a, R> {
    fn new(fetch: &'a Fetch, report: R) -> Self {
        Pipeline { fetch, report, gathered: Vec::new(), writing: None, patience: Box::pin(sleep(PATIENCE)) }
    }

    /// The next `len` bytes of the stream; `None` if it ends before.
    async fn read(&mut self, stream: &mut RecvStream, len: u32) -> Option<Buffer> {
        let mut buffer = self.room(len).await;
        let mut filled = 0;
        while filled < len as usize {
            tokio::select! {
                biased;
                read = stream.read(&mut buffer.as_mut()[filled..]) => match read {
                    Ok(Some(count)) => filled += count,
                    Ok(None) | Err(_) => return None,
                },
                () = self.handed_over() => {}
            }
        }
        Some(buffer)
    }

    async fn room(&mut self, len: u32) -> Buffer {
        let buffers = self.fetch.buffers.clone();
        let mut taking = core::pin::pin!(buffers.take(len));
        if let Some(buffer) = taking.as_mut().now_or_never() {
            return buffer;
        }
        // Who waits for a buffer holds none that is not being written.
        loop {
            self.begin();
            tokio::select! {
                buffer = &mut taking => return buffer,
                () = self.written() => {}
            }
        }
    }

    async fn push(&mut self, chunk: ChunkIndex, buffer: Buffer) {
        if self.gathered.is_empty() {
            self.patience.as_mut().reset(Instant::now() + PATIENCE);
        }
        self.gathered.push((chunk, buffer));
        if self.gathered.len() >= BATCH_MOST {
            while self.writing.is_some() {
                self.written().await;
            }
            self.begin();
        }
    }

    /// Hands over what is gathered once it has waited long enough. Never done; can be dropped at any time.
    async fn handed_over(&mut self) {
        loop {
            self.written().await;
            if self.gathered.is_empty() {
                core::future::pending::<()>().await;
            }
            self.patience.as_mut().await;
            self.begin();
        }
    }

    /// Waits for the end of the batch that is being written, if one is. Can be dropped while it waits.
    async fn written(&mut self) {
        if let Some(writing) = &mut self.writing {
            // A worker that panicked has said so; the driver notices at the invariant that broke.
            let _ = writing.await;
            self.writing = None;
        }
    }

    /// Hands over what is gathered, unless a batch is being written.
    fn begin(&mut self) {
        if self.writing.is_some() || self.gathered.is_empty() {
            return;
        }
        let (image, report) = (self.fetch.image.clone(), self.report.clone());
        let chunks = core::mem::take(&mut self.gathered);
        self.writing = Some(self.fetch.workers.begin(move || report(store(&image, chunks))));
    }

    async fn finish(&mut self) {
        while self.writing.is_some() || !self.gathered.is_empty() {
            self.written().await;
            self.begin();
        }
    }
}

/// Verifies and writes chunks. Blocks.
pub(crate) fn store(image: &Image, chunks: Vec<(ChunkIndex, Buffer)>) -> Batch {
    let mut batch = Batch::default();
    for (chunk, buffer) in chunks {
        match write(image, chunk, &buffer) {
            Ok(true) => batch.stored.push(chunk),
            Ok(false) => batch.rejected.push(chunk),
            Err(error) => {
                batch.refused = Some(Refused { chunk, buffer, error });
                break;
            }
        }
    }
    batch
}

/// Verifies a chunk and writes it; says whether it was what it had to be. Blocks.
fn write(image: &Image, chunk: ChunkIndex, buffer: &Buffer) -> Result<bool, WriteError> {
    match image.manifest().verify(chunk, buffer) {
        Ok(verified) => image.write(verified).map(|_| true),
        Err(_) => Ok(false),
    }
}

impl Refused {
    /// Tries to write the chunk again. Blocks.
    pub(crate) fn retry(self, image: &Image) -> Batch {
        store(image, vec![(self.chunk, self.buffer)])
    }
}
