//! `drover post`: a release that was held back, handed out.

use std::path::PathBuf;

use clap::Args;
use ed25519_dalek::SigningKey;

use super::key::{self, SigningArgs};
use super::output::warn;
use super::publish::{post, taken};
use super::{Common, Exit, held};
use crate::control::Problem;
use crate::control::api::Posted;

/// Hand out a release that was held back, signed by as many publishers as the fleet asks for
///
/// Run it on the host that published the master. With the key of the publisher who made the release it goes into the hash
/// table, too, by which hosts find it without a tracker and without knowing another host that has it.
#[derive(Args, Debug)]
pub(super) struct Post {
    /// The release, as `drover cosign` left it
    file: PathBuf,
    #[command(flatten)]
    signing: SigningArgs,
}

impl Post {
    pub(super) async fn run(&self, common: &Common) -> Result<Exit, Problem> {
        let (signed, release) = held::read(&self.file, "post")?;
        let made_it = |key: &SigningKey| key::public_half(key) == signed.publisher;
        let own = self.signing.read_if_any(common)?.filter(made_it);
        if own.is_none() {
            warn(&format!(
                "without the key of {}, who made the release, it is not put into the hash table; trackers and hosts tell of it",
                signed.publisher
            ));
        }
        let posted = post(&common.client(), signed, &release.name, own.as_ref()).await?;
        common.output().print(&posted, |Posted { name, version, .. }| format!("{name}@{version}"))?;
        Ok(taken(&posted))
    }
}
