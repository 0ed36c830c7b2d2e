//! `drover keygen`: a key to sign releases with.

use std::path::PathBuf;

use clap::Args;
use drover_protocol::id::PublisherKey;
use serde::Serialize;

use super::output::say;
use super::passphrase::Passphrase;
use super::{Common, Exit, key};
use crate::control::{Code, Problem};

/// Make a key to sign releases with, and print its public half
///
/// The cluster comes to trust it by `drover-tracker publishers --add` at each tracker, or when a host joins with it and a
/// publisher's token (`drover join --publisher-key`). It need not lie on a host of the fleet.
#[derive(Args, Debug)]
pub(super) struct Keygen {
    /// Where to write the private key: a new file, for its owner only
    file: PathBuf,
    /// Encrypt it with a passphrase, which is asked for or, if it is named, read from a file
    #[arg(long)]
    encrypt: bool,
    #[command(flatten)]
    passphrase: Passphrase,
}

#[derive(Serialize)]
struct Made {
    publisher: PublisherKey,
    file: PathBuf,
}

impl Keygen {
    pub(super) fn run(&self, common: &Common) -> Result<Exit, Problem> {
        let (file, what) = (&self.file, format!("keygen {}", self.file.display()));
        if file.symlink_metadata().is_ok() {
            return Err(Problem::new(Code::Refused, what, "something is there, and no key is ever overwritten"));
        }
        let is_encrypted = self.encrypt || self.passphrase.is_named();
        let passphrase = is_encrypted.then(|| self.passphrase.for_new_key(file)).transpose()?;
        let made =
            key::make(file, passphrase.as_deref()).map_err(|error| Problem::explained(Code::Failed, what, &error))?;
        common.output().print(&Made { publisher: made, file: file.clone() }, |made| made.publisher.to_string())?;
        say(&format!(
            "{} is a secret, keep a copy of it; next: drover-tracker publishers --add {made}",
            file.display()
        ));
        Ok(Exit::Done)
    }
}
