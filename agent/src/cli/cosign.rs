//! `drover cosign`: one more publisher's signature on a release that is held back.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use drover_link::identity::unix_now_s;
use drover_protocol::id::{ContentHash, ImageId, PublisherKey};
use drover_protocol::release::{Name, Release};
use serde::Serialize;

use super::key::SigningArgs;
use super::output::say;
use super::{Common, Exit, held};
use crate::control::{Code, Problem};
use crate::quantity::show_duration;
use crate::store::import::image_of;

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
    /// Sign only if this raw disk is the image that the release names; all of it is read
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
        let (_, release) = held::read(&self.file, "cosign")?;
        let what = format!("cosign {}@{}", release.name, release.version);
        let refuse = |error: &dyn std::error::Error| Problem::explained(Code::Refused, &what, error);
        release.check_time(unix_now_s()).map_err(|error| refuse(&error))?;
        if let Some(disk) = &self.disk {
            check_disk(disk, &release, &what)?;
        }
        let key = self.signing.read(common, &what)?;
        let (signed, is_new) = held::change(&self.file, &what, |signed, now| {
            if *now != release {
                return Err(Problem::new(Code::Refused, &what, "the file holds another release than a moment ago")
                    .todo("nothing was signed; look at what is in it, and try again"));
            }
            signed.cosign(&key).map_err(|error| refuse(&error))
        })?;
        let publishers = signed.signers();
        let Release { name, version, image, content_len, content_hash, created_unix_s, expires_unix_s, .. } = release;
        let cosigned =
            Cosigned { name, version, image, content_len, content_hash, created_unix_s, expires_unix_s, publishers };
        common.output().print(&cosigned, show)?;
        let file = self.file.display();
        if is_new {
            say(&format!("signed; when enough publishers have: drover post {file}"));
        } else {
            say(&format!("this key has signed it before: nothing was added to {file}"));
        }
        Ok(Exit::Done)
    }
}

/// Refuses a disk that is another image. The hash of its content would not do: nobody compares that of a release with the
/// image that the release names.
fn check_disk(disk: &Path, release: &Release, what: &str) -> Result<(), Problem> {
    let (image, len) =
        image_of(disk).map_err(|error| Problem::explained(Code::Failed, format!("read {}", disk.display()), &error))?;
    if image == release.image {
        return Ok(());
    }
    let (disk, content_len) = (disk.display(), release.content_len);
    let why =
        format!("{disk} has {len} bytes and is image {image}; the release is of {content_len} and {}", release.image);
    Err(Problem::new(Code::Refused, what, why).todo("nothing was signed; ask who made the release what it is of"))
}

fn show(cosigned: &Cosigned) -> String {
    let now = unix_now_s();
    let since = |later: u64, earlier: u64| Duration::from_secs(later.saturating_sub(earlier));
    let mut lines = vec![
        format!("{}@{}", cosigned.name, cosigned.version),
        format!("image      {}", cosigned.image),
        format!("content    {} (BLAKE3), {} bytes", cosigned.content_hash, cosigned.content_len),
        format!("created    {} ago", show_duration(since(now, cosigned.created_unix_s))),
        format!("expires    in {}", show_duration(since(cosigned.expires_unix_s, now))),
    ];
    lines.extend(cosigned.publishers.iter().map(|publisher| format!("signed by  {publisher}")));
    lines.join("\n")
}
