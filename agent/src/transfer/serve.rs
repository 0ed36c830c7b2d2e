//! A chunk's way out: read by a worker into pooled buffers, handed to the stream without a copy.
//!
//! While one batch is written to the stream the next is read from disk. A buffer comes back to the pool when the peer has
//! acknowledged its bytes.

use core::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use drover_link::frame::write_frame;
use drover_protocol::geometry::ChunkIndex;
use drover_protocol::message::DataReply;
use quinn::{SendStream, VarInt};
use tokio::time::timeout;

use super::buffers::{Buffer, Buffers};
use super::pages;
use super::workers::Workers;
use crate::store::{Image, ReadError};

/// Chunks that one job reads (512 KiB).
const BATCH: usize = 8;
/// A peer that takes no chunk in this time has stalled.
const TAKE_DEADLINE: Duration = Duration::from_secs(10);
/// The stream's error code when the rest can't be read.
const CUT_SHORT: VarInt = VarInt::from_u32(1);

/// A request of a peer's that is granted.
#[derive(Debug)]
pub(crate) struct Serving {
    /// Where the bytes go.
    pub stream: SendStream,
    /// Where they come from.
    pub image: Arc<Image>,
    /// Numbers of the chunks within the image, checked against its geometry.
    pub chunks: Vec<Range<u32>>,
    /// Room for what is on the way.
    pub buffers: Buffers,
    /// Who reads.
    pub workers: Workers,
}

/// How serving ended.
#[derive(Debug)]
pub(crate) struct Served {
    /// Bytes handed to the network.
    pub bytes: u64,
    /// Why not all were, if so.
    pub failure: Option<ServeFailure>,
}

/// Why a request was not served to its end.
#[derive(Debug)]
pub(crate) enum ServeFailure {
    /// The peer stopped it, stalled or is gone.
    Peer,
    /// A chunk could not be read.
    Read(ChunkIndex, ReadError),
}

impl Serving {
    /// Sends it all.
    pub(crate) async fn run(mut self) -> Served {
        let mut bytes = 0;
        let failure = self.send(&mut bytes).await.err();
        match failure {
            None => {
                // Fails only if the peer stopped the stream, with everything handed over.
                let _ = self.stream.finish();
            }
            Some(_) => {
                // Fails only if the stream is over already.
                let _ = self.stream.reset(CUT_SHORT);
            }
        }
        Served { bytes, failure }
    }

    async fn send(&mut self, bytes: &mut u64) -> Result<(), ServeFailure> {
        let geometry = self.image.manifest().geometry();
        let chunks: Vec<ChunkIndex> =
            self.chunks.iter().cloned().flatten().filter_map(|number| geometry.chunk(number)).collect();
        let mut batches = chunks.chunks(BATCH);
        let Some(first) = batches.next() else { return Ok(()) };

        // The first batch is read before the peer is told that bytes follow, so that a bad disk shows early.
        let reader = Reader { image: self.image.clone(), buffers: self.buffers.clone(), workers: self.workers.clone() };
        let mut read = reader.read(first).await?;
        let accepted = DataReply::Accepted { len: pages::bytes_in(&geometry, &self.chunks) };
        let told = timeout(TAKE_DEADLINE, write_frame(&mut self.stream, &accepted)).await;
        told.map_err(|_| ServeFailure::Peer)?.map_err(|_| ServeFailure::Peer)?;
        for batch in batches {
            let (sent, next) = tokio::join!(write(&mut self.stream, read, bytes), reader.read(batch));
            sent?;
            read = next?;
        }
        write(&mut self.stream, read, bytes).await
    }
}

struct Reader {
    image: Arc<Image>,
    buffers: Buffers,
    workers: Workers,
}

impl Reader {
    async fn read(&self, chunks: &[ChunkIndex]) -> Result<Vec<Buffer>, ServeFailure> {
        let geometry = self.image.manifest().geometry();
        let lens: Vec<u32> = chunks.iter().map(|&chunk| geometry.chunk_len(chunk)).collect();
        let mut buffers = self.buffers.take_all(&lens).await;
        let (image, chunks) = (self.image.clone(), chunks.to_vec());
        let job = move || {
            for (&chunk, buffer) in chunks.iter().zip(&mut buffers) {
                image.read(chunk, buffer.as_mut()).map_err(|error| ServeFailure::Read(chunk, error))?;
            }
            Ok(buffers)
        };
        self.workers.run(job).await
    }
}

async fn write(stream: &mut SendStream, buffers: Vec<Buffer>, bytes: &mut u64) -> Result<(), ServeFailure> {
    for buffer in buffers {
        let len = buffer.as_ref().len() as u64;
        match timeout(TAKE_DEADLINE, stream.write_chunk(buffer.into_bytes())).await {
            Ok(Ok(())) => *bytes += len,
            Ok(Err(_)) | Err(_) => return Err(ServeFailure::Peer),
        }
    }
    Ok(())
}
