//! Length-limited reading and writing of messages.
//!
//! A message is postcard bytes. Every kind has a greatest length; a driver reads a frame's four-byte length (little
//! endian), compares it with [`Message::MAX_LEN`] before it makes room for anything, and hands the body to [`decode`].
//! A body must be used up to its last byte, and every list and text in it keeps a bound of its own, which [`encode`]
//! and [`decode`] check alike. A length inside a body that promises more elements than there are bytes left makes
//! nobody allocate: postcard then reserves nothing and grows with what it really reads. So a body costs at most some
//! thirty times its length in memory (`tests/memory.rs` measures it), for as long as it is read.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Length of the length before a frame's body, in bytes.
pub const FRAME_HEADER_LEN: usize = 4;

/// What can be sent as a frame.
pub trait Message: Serialize + DeserializeOwned {
    /// Greatest length of a body in bytes.
    const MAX_LEN: usize;
    /// What it is, for errors.
    const NAME: &'static str;

    /// Whether every list and text in it keeps its own bound; names the first that does not.
    fn check(&self) -> Result<(), &'static str> {
        Ok(())
    }
}

/// Why bytes are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Longer than this kind may be.
    #[error("{name} of {len} bytes: at most {max} are allowed")]
    TooLong {
        /// What it was to be.
        name: &'static str,
        /// Announced or actual length.
        len: usize,
        /// [`Message::MAX_LEN`].
        max: usize,
    },
    /// No message of this kind.
    #[error("malformed {name}: {cause}")]
    Malformed {
        /// What it was to be.
        name: &'static str,
        /// What the decoder said.
        cause: postcard::Error,
    },
    /// A list or text in it is longer than it may be.
    #[error("{name} has {what}")]
    OverLimit {
        /// What it was to be.
        name: &'static str,
        /// What is too long.
        what: &'static str,
    },
    /// Bytes are left over.
    #[error("{left} bytes follow {name}")]
    Trailing {
        /// What it was to be.
        name: &'static str,
        /// How many are left.
        left: usize,
    },
}

/// A message of ours that the other side would refuse: a limit was not kept where the message was made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("can't be sent: {0}")]
pub struct EncodeError(DecodeError);

/// The body of `message`.
pub fn encode<M: Message>(message: &M) -> Result<Vec<u8>, EncodeError> {
    check_limits(message).map_err(EncodeError)?;
    let body = postcard::to_stdvec(message).expect("messages hold only what postcard can write");
    check_len::<M>(body.len()).map_err(EncodeError)?;
    Ok(body)
}

/// `message` as a frame: length and body.
pub fn encode_frame<M: Message>(message: &M) -> Result<Vec<u8>, EncodeError> {
    let body = encode(message)?;
    let mut frame = Vec::with_capacity(FRAME_HEADER_LEN + body.len());
    frame.extend_from_slice(&(body.len() as u32).to_le_bytes());
    frame.extend_from_slice(&body);
    Ok(frame)
}

/// The length of the body that follows a frame's header, if this kind may be that long.
pub fn body_len<M: Message>(header: [u8; FRAME_HEADER_LEN]) -> Result<usize, DecodeError> {
    let len = u32::from_le_bytes(header) as usize;
    check_len::<M>(len)?;
    Ok(len)
}

/// The message whose body this is.
pub fn decode<M: Message>(body: &[u8]) -> Result<M, DecodeError> {
    check_len::<M>(body.len())?;
    let (message, rest) =
        postcard::take_from_bytes(body).map_err(|cause| DecodeError::Malformed { name: M::NAME, cause })?;
    if !rest.is_empty() {
        return Err(DecodeError::Trailing { name: M::NAME, left: rest.len() });
    }
    check_limits(&message)?;
    Ok(message)
}

fn check_limits<M: Message>(message: &M) -> Result<(), DecodeError> {
    message.check().map_err(|what| DecodeError::OverLimit { name: M::NAME, what })
}

fn check_len<M: Message>(len: usize) -> Result<(), DecodeError> {
    if len > M::MAX_LEN { Err(DecodeError::TooLong { name: M::NAME, len, max: M::MAX_LEN }) } else { Ok(()) }
}
