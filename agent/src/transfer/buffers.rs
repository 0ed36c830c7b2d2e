//! A bounded pool of chunk buffers.
//!
//! The pool is all the memory that masters' bytes may take on their way between network and disk, beside what the QUIC
//! connections' windows allow. Who waits for a buffer waits with its stream unread, so the sender is slowed down by flow
//! control. Buffers are made when first needed, then kept and used again.
//!
//! Receiving and serving have a pool each: were it one, a host whose peers do not acknowledge what they were sent could
//! not receive.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use drover_protocol::geometry::CHUNK_LEN;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What one batch of a stream may need.
pub(crate) const LEAST: usize = 16;

/// The pool. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Buffers {
    free: Arc<Mutex<Vec<Box<[u8]>>>>,
    permits: Arc<Semaphore>,
}

/// Room for one chunk, on loan from a pool until it is dropped.
#[derive(Debug)]
pub(crate) struct Buffer {
    /// Always [`CHUNK_LEN`] long while on loan.
    room: Box<[u8]>,
    len: usize,
    home: Arc<Mutex<Vec<Box<[u8]>>>>,
    _permit: OwnedSemaphorePermit,
}

impl Buffers {
    /// A pool of as many buffers as fit into `bytes`, at least [`LEAST`].
    pub(crate) fn of(bytes: usize) -> Self {
        let count = (bytes / CHUNK_LEN as usize).max(LEAST);
        Buffers { free: Arc::default(), permits: Arc::new(Semaphore::new(count)) }
    }

    /// A buffer for `len` bytes, at most [`CHUNK_LEN`], as soon as one is free. What it holds is left from before.
    pub(crate) async fn take(&self, len: u32) -> Buffer {
        let permit = self.permits.clone().acquire_owned().await.expect("the pool is never closed");
        self.lend(len, permit)
    }

    /// The same, if one is free now.
    pub(crate) fn try_take(&self, len: u32) -> Option<Buffer> {
        let permit = self.permits.clone().try_acquire_owned().ok()?;
        Some(self.lend(len, permit))
    }

    /// A buffer for each of `lens`, at most as many as the pool has, all at once: who waits for some holds none.
    pub(crate) async fn take_all(&self, lens: &[u32]) -> Vec<Buffer> {
        let count = u32::try_from(lens.len()).expect("a pool has fewer buffers than that");
        let permits = self.permits.clone().acquire_many_owned(count).await;
        let mut permits = permits.expect("the pool is never closed");
        let lend = |&len| self.lend(len, permits.split(1).expect("as many permits as buffers were acquired"));
        lens.iter().map(lend).collect()
    }

    fn lend(&self, len: u32, permit: OwnedSemaphorePermit) -> Buffer {
        assert!(len <= CHUNK_LEN, "a buffer holds one chunk");
        let room = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let room = room.unwrap_or_else(|| vec![0; CHUNK_LEN as usize].into_boxed_slice());
        Buffer { room, len: len as usize, home: self.free.clone(), _permit: permit }
    }
}

impl Buffer {
    /// The buffer as bytes for a stream; it comes home when the last of them is dropped.
    pub(crate) fn into_bytes(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.room[..self.len]
    }
}

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.room[..self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let room = std::mem::take(&mut self.room);
        self.home.lock().unwrap_or_else(PoisonError::into_inner).push(room);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_pool_lends_no_more_than_it_has_and_lends_again_what_comes_back() {
        let pool = Buffers::of(0);
        let most = pool.take_all(&[CHUNK_LEN; LEAST - 1]).await;
        let last = pool.take(100).await.into_bytes();
        assert_eq!((most[0].as_ref().len(), last.len()), (CHUNK_LEN as usize, 100));
        assert!(pool.take(1).now_or_never().is_none());
        drop(last);
        assert!(pool.take_all(&[1, 1]).now_or_never().is_none());
        assert!(pool.take(1).now_or_never().is_some());
        drop(most);
        assert_eq!(pool.permits.available_permits(), LEAST);
        assert_eq!(pool.free.lock().unwrap().len(), LEAST);
    }
}
