//! Frames of `drover_protocol::codec` on QUIC streams.
//!
//! A frame's length is compared with what its kind may have before room is made for it, and room is made only as the
//! bytes come. Reading never takes a byte beyond the frame, because payload may follow it. A frame may begin at any time,
//! unless who waits for it sets a deadline, and is then to come whole within ten seconds: who sends it has all of it.

use std::marker::PhantomData;
use std::time::Duration;

use drover_protocol::codec::{self, DecodeError, EncodeError, FRAME_HEADER_LEN, Message};
use quinn::{ReadError, RecvStream, SendStream, WriteError};
use tokio::time::{Instant, timeout_at};

use crate::config::PROMPT;

/// How long a frame that has begun may take to come.
const WHOLE_WITHIN: Duration = Duration::from_secs(10);

/// Why a frame could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The stream can't be read any more.
    #[error("can't read: {0}")]
    Read(#[from] ReadError),
    /// The stream can't be written any more.
    #[error("can't write: {0}")]
    Write(#[from] WriteError),
    /// The other side sent something else than it should.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A message of ours is too long.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The stream ended within a frame, or where one had to be.
    #[error("the stream ended before the {0} did")]
    Ended(&'static str),
    /// A frame began and did not come whole in time.
    #[error("the {0} began and did not come whole in time")]
    Slow(&'static str),
}

/// Why a question got no answer.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// No stream could be opened.
    #[error("{}", crate::close::reason(.0))]
    Connection(#[from] quinn::ConnectionError),
    /// The question or the answer did not get through.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// Sends frames of one kind.
pub struct FrameSender<M> {
    stream: SendStream,
    kind: PhantomData<fn(M)>,
}

/// Receives frames of one kind.
pub struct FrameReceiver<M> {
    stream: RecvStream,
    partial: Partial,
    kind: PhantomData<fn() -> M>,
}

/// The part of a frame that has come.
#[derive(Default)]
struct Partial {
    header: [u8; FRAME_HEADER_LEN],
    header_len: usize,
    body: Vec<u8>,
    /// When all of it has to be there, once it has begun.
    due: Option<Instant>,
}

/// The next frame, or `None` if the stream ended before it began.
pub async fn read_frame<M: Message>(stream: &mut RecvStream) -> Result<Option<M>, FrameError> {
    Partial::default().read(stream).await
}

/// The next frame, where there must be one.
pub async fn expect_frame<M: Message>(stream: &mut RecvStream) -> Result<M, FrameError> {
    read_frame(stream).await?.ok_or(FrameError::Ended(M::NAME))
}

/// Sends `message` as a frame. If this is dropped before it is ready, part of the frame may be sent: drop the stream too.
pub async fn write_frame<M: Message>(stream: &mut SendStream, message: &M) -> Result<(), FrameError> {
    stream.write_all(&codec::encode_frame(message)?).await?;
    Ok(())
}

/// Has what is written to the stream sent before payload.
pub fn prompt(stream: &SendStream) {
    // Fails only if the stream is over, and then there is nothing to send.
    let _ = stream.set_priority(PROMPT);
}

/// Asks a question on a stream of its own and waits for the one answer.
pub async fn request<Q: Message, A: Message>(connection: &quinn::Connection, question: &Q) -> Result<A, RequestError> {
    let (mut send, mut receive) = connection.open_bi().await?;
    prompt(&send);
    write_frame(&mut send, question).await?;
    // The stream can't have been finished or reset before: it is new and ours.
    let _ = send.finish();
    Ok(expect_frame(&mut receive).await?)
}

impl<M: Message> FrameSender<M> {
    /// Sends on `stream`.
    pub fn new(stream: SendStream) -> Self {
        FrameSender { stream, kind: PhantomData }
    }

    /// Sends one frame. If this is dropped before it is ready, part of the frame may be sent: send no more.
    pub async fn send(&mut self, message: &M) -> Result<(), FrameError> {
        write_frame(&mut self.stream, message).await
    }

    /// The stream.
    pub fn into_inner(self) -> SendStream {
        self.stream
    }
}

impl<M: Message> FrameReceiver<M> {
    /// Receives from `stream`.
    pub fn new(stream: RecvStream) -> Self {
        FrameReceiver { stream, partial: Partial::default(), kind: PhantomData }
    }

    /// The next frame, or `None` if the stream ended after the last. Nothing is lost if this is dropped before it is
    /// ready, so it may stand in a `select!`.
    pub async fn next(&mut self) -> Result<Option<M>, FrameError> {
        self.partial.read(&mut self.stream).await
    }
}

impl Partial {
    async fn read<M: Message>(&mut self, stream: &mut RecvStream) -> Result<Option<M>, FrameError> {
        while self.header_len < FRAME_HEADER_LEN {
            let read = stream.read(&mut self.header[self.header_len..]);
            match by::<M, _>(self.due, read).await? {
                Some(len) => {
                    self.header_len += len;
                    self.due.get_or_insert_with(|| Instant::now() + WHOLE_WITHIN);
                }
                None if self.header_len == 0 => return Ok(None),
                None => return Err(FrameError::Ended(M::NAME)),
            }
        }
        let len = codec::body_len::<M>(self.header)?;
        while self.body.len() < len {
            let chunk = by::<M, _>(self.due, stream.read_chunk(len - self.body.len(), true)).await?;
            self.body.extend_from_slice(&chunk.ok_or(FrameError::Ended(M::NAME))?.bytes);
        }
        let partial = std::mem::take(self);
        Ok(Some(codec::decode(&partial.body)?))
    }
}

/// What is read of a message until it is due.
async fn by<M: Message, T>(
    due: Option<Instant>,
    read: impl Future<Output = Result<T, ReadError>>,
) -> Result<T, FrameError> {
    let Some(due) = due else { return Ok(read.await?) };
    Ok(timeout_at(due, read).await.map_err(|_| FrameError::Slow(M::NAME))??)
}
