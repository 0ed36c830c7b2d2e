//! `drover cosign`: one more publisher's signature on a release that is held back.

use std::fs::File;
use std::path::{Path, PathBuf};

use clap::Args;
use drover_link::identity::unix_now_s;
use drover_protocol::id::{ContentHash, ImageId, PublisherKey};
use drover_protocol::release::{Name, Release};
use serde::Serialize;

use super::key::SigningArgs;
use super::output::say;
use super::{Common, Exit, held};
use crate::control::{Code, Problem};

/// Sign a release that another publisher made and holds back, and print what it states
///
/// For fleets whose hosts ask for more than one signature (the setting signatures), so that one stolen key is of no use.
/// The file comes from `drover publish --hold` or `drover renew --hold` and goes back for `drover post`. No daemon is needed
/// here.
#[derive(Args, Debug)]
pub(super) struct Cosign {
    /// The release, which is written back with the signature
    file: PathBuf,
    #[command(flatten)]
    signing: SigningArgs,
    /// Sign only if the content of this raw disk is what the release is of, which is read as a whole
    #[arg(long, value_name = "FILE")]
    disk: Option<PathBuf>,
}

/// What was signed.
#[derive(Serialize)]
struct Cosigned {
    name: Name,
    version: u64,
    image: ImageId,
    content_len: u64,
    content_hash: ContentHash,
    created_unix_s: u64,
    expires_unix_s: u64,
    /// Who has signed it, who made it first.
    publishers: Vec<PublisherKey>,
}

impl Cosign {
    pub(super) fn run(&self, common: &Common) -> Result<Exit, Problem> {
        let (mut signed, release) = held::read(&self.file, "cosign")?;
        let what = format!("cosign {}@{}", release.name, release.version);
        let refuse = |error: &dyn std::error::Error| Problem::explained(Code::Refused, &what, error);
        release.check_time(unix_now_s()).map_err(|error| refuse(&error))?;
        if let Some(disk) = &self.disk {
            check_content(disk, &release, &what)?;
        }
        let key = self.signing.read(common, &what)?;
        signed.cosign(&key).map_err(|error| refuse(&error))?;
        held::replace(&self.file, &signed, &what)?;
        let publishers = signed.signers();
        let Release { name, version, image, content_len, content_hash, created_unix_s, expires_unix_s, .. } = release;
        let cosigned =
            Cosigned { name, version, image, content_len, content_hash, created_unix_s, expires_unix_s, publishers };
        common.output().print(&cosigned, show)?;
        say(&format!("signed; when enough publishers have: drover post {}", self.file.display()));
        Ok(Exit::Done)
    }
}

/// Refuses a disk that holds something else.
fn check_content(disk: &Path, release: &Release, what: &str) -> Result<(), Problem> {
    let mut hasher = blake3::Hasher::new();
    File::open(disk)
        .and_then(|file| hasher.update_reader(file).map(drop))
        .map_err(|error| Problem::new(Code::Failed, format!("read {}", disk.display()), error))?;
    let (len, hash) = (hasher.count(), ContentHash::from_bytes(hasher.finalize().into()));
    if (len, hash) == (release.content_len, release.content_hash) {
        return Ok(());
    }
    let why = format!(
        "{} has {len} bytes with the BLAKE3 hash {hash}; the release is of {} with {}",
        disk.display(),
        release.content_len,
        release.content_hash
    );
    Err(Problem::new(Code::Refused, what, why).todo("nothing was signed; ask who made the release what it is of"))
}

fn show(cosigned: &Cosigned) -> String {
    let mut lines = vec![
        format!("{}@{}", cosigned.name, cosigned.version),
        format!("image      {}", cosigned.image),
        format!("content    {} (BLAKE3), {} bytes", cosigned.content_hash, cosigned.content_len),
        format!("created    {} (seconds since 1970)", cosigned.created_unix_s),
        format!("expires    {} (seconds since 1970)", cosigned.expires_unix_s),
    ];
    lines.extend(cosigned.publishers.iter().map(|publisher| format!("signed by  {publisher}")));
    lines.join("\n")
}
