//! Tokens: what stands for chunks.
//!
//! A chunk has 64 KiB, and hashing those for every chunk that any host gets would be nearly all that a run does. A token has
//! one KiB, two sectors, so that a crash can tear it. The manifest is a real one; its hashes are those of the tokens, and a
//! token is compared with them as [`Manifest::verify`] compares bytes, but for the length.

use drover_durability::Verified;
use drover_protocol::geometry::{ChunkIndex, Geometry};
use drover_protocol::id::{ContentHash, ImageId};
use drover_protocol::manifest::{Manifest, ManifestBuilder, hash_chunk};
use drover_protocol::planted::{Bug, is_planted};

/// Length of a token in bytes.
pub(super) const TOKEN_LEN: usize = 1024;

/// A token as it travels.
pub(super) type Token = Box<[u8; TOKEN_LEN]>;

/// A token that was compared with its manifest.
#[derive(Debug)]
pub(super) struct VerifiedToken {
    image: ImageId,
    index: ChunkIndex,
    token: Token,
}

impl Verified for VerifiedToken {
    fn image(&self) -> ImageId {
        self.image
    }

    fn index(&self) -> ChunkIndex {
        self.index
    }

    fn bytes(&self) -> &[u8] {
        &self.token[..]
    }
}

/// The right token of a chunk of the image with this tag.
pub(super) fn right(tag: u64, chunk: u32) -> Token {
    let mut token = Box::new([0; TOKEN_LEN]);
    for (at, word) in token.chunks_exact_mut(8).enumerate() {
        let mixed = (tag ^ u64::from(chunk) << 32 ^ at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        word.copy_from_slice(&mixed.to_le_bytes());
    }
    token
}

/// The manifest of the image with this tag: `zeros` says which chunks are zeros.
pub(super) fn manifest(tag: u64, geometry: Geometry, zeros: impl Fn(u32) -> bool) -> Manifest {
    let mut builder = ManifestBuilder::new(geometry);
    for chunk in geometry.chunks() {
        let number = chunk.number();
        builder.push((!zeros(number)).then(|| hash_chunk(&right(tag, number)[..])));
    }
    let mut content = [0; 32];
    content[..8].copy_from_slice(&tag.to_le_bytes());
    builder.finish(ContentHash::from_bytes(content))
}

/// Makes sure that a token is the chunk's.
pub(super) fn verify(manifest: &Manifest, index: ChunkIndex, token: Token) -> Option<VerifiedToken> {
    let is_right = manifest.chunk_hash(index) == Some(hash_chunk(&token[..]));
    (is_right || is_planted(Bug::SkipVerify)).then(|| VerifiedToken { image: manifest.image_id(), index, token })
}
