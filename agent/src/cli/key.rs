//! The keys that releases are signed with: made, read, and kept from others.
//!
//! A key's file is PKCS#8 in PEM, as `openssl pkey` reads it. It is read only if nobody but its owner may read it.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use drover_link::durable::{self, WriteError};
use drover_protocol::id::PublisherKey;
use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey};

use crate::control::{Code, Problem};

/// A key has a few hundred bytes.
const LONGEST: u64 = 16 * 1024;

/// Makes a key and writes it, durably, for its owner only; gives its public half. What is there already stays.
pub(super) fn make(path: &Path) -> Result<PublisherKey, WriteError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).expect("the system's random numbers work");
    let key = SigningKey::from_bytes(&seed);
    let text = key.to_pkcs8_pem(LineEnding::LF).expect("an Ed25519 key has a PKCS#8 form");
    // Root's stays root's: the daemon has no use for it.
    durable::create_own(path, text.as_bytes(), durable::PRIVATE)?;
    Ok(public_half(&key))
}

/// Reads a key that nobody but its owner can read.
pub(super) fn read(path: &Path) -> Result<SigningKey, Problem> {
    let what = || format!("publisher's key {}", path.display());
    let opened = File::open(path).and_then(|file| {
        let (mode, mut pem) = (file.metadata()?.permissions().mode() & 0o777, String::new());
        file.take(LONGEST).read_to_string(&mut pem)?;
        Ok((mode, pem))
    });
    let (mode, pem) = opened.map_err(|error| {
        let code = if error.kind() == io::ErrorKind::NotFound { Code::NotFound } else { Code::Failed };
        Problem::new(code, what(), error)
            .todo("`drover-tracker init --state DIR` makes the first one: DIR/publisher.key")
    })?;
    if mode & 0o077 != 0 {
        let why = format!("others on this machine can read it (mode {mode:o})");
        let todo = format!("chmod 600 {}, and make a new key if others use this machine", path.display());
        return Err(Problem::new(Code::Refused, what(), why).todo(todo));
    }
    SigningKey::from_pkcs8_pem(&pem).map_err(|error| {
        Problem::new(Code::Usage, what(), format!("it is no Ed25519 key in PKCS#8 PEM: {error}"))
            .todo("give the file that `drover-tracker init` or `drover keygen` made")
    })
}

/// What others know of a key.
pub(super) fn public_half(key: &SigningKey) -> PublisherKey {
    PublisherKey::from_bytes(key.verifying_key().to_bytes())
}
