//! `drover publish`: one file in, a signed release out.
//!
//! The daemon reads the file and seeds the master; this process signs the release, and the item that holds it in the
//! cluster's hash table, so that the publisher's key never leaves the hands of who calls it. What can be refused is
//! refused before the file is read.

use std::path::{Path, PathBuf};

use clap::Args;
use drover_link::identity::unix_now_s;
use drover_protocol::id::ImageId;
use drover_protocol::item::Item;
use drover_protocol::release::{Name, RELEASE_FORMAT, Release, SignedRelease};
use ed25519_dalek::SigningKey;

use super::key::SigningArgs;
use super::output::{say, warn};
use super::progress::Progress;
use super::{Common, Exit, held, key};
use crate::control::api::Publish as Request;
use crate::control::api::{
    Event, Fetch, Format, ImportMode, Imported, Line, MasterRef, NextRelease, PostRelease, Posted, Released, Removed,
};
use crate::control::client::Client;
use crate::control::{Code, Problem};
use crate::quantity::{Bytes, parse_duration};

/// Make a file a master, sign a release of it, and seed it
///
/// Returns when a tracker has taken the release. If none can be reached, the release is kept and posted as soon as one
/// can (exit code 6).
#[derive(Args, Debug)]
pub(super) struct Publish {
    /// The disk: raw, qcow2, vmdk, vhd or vhdx, readable by the daemon
    file: PathBuf,
    /// What to call it: 1 to 64 of a-z 0-9 . _ -
    #[arg(long)]
    name: Name,
    #[command(flatten)]
    signing: SigningArgs,
    /// Its version (default: one more than the newest known)
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    version: Option<u64>,
    /// From when on hosts must not accept it any more, counted from now
    #[arg(long, default_value = "365d", value_name = "TIME", value_parser = parse_duration)]
    expires: std::time::Duration,
    /// Its format (default: told from the file)
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Serve the given file itself (of a link, the file that it leads to), which must not change any more; it has to be raw
    #[arg(long, conflicts_with = "copy")]
    in_place: bool,
    /// Copy the bytes even where the file system could share them
    #[arg(long)]
    copy: bool,
    /// Write the release into this new file instead of handing it out, for other publishers to sign (`drover cosign`); hosts
    /// hear of it by `drover post`
    #[arg(long, value_name = "FILE")]
    hold: Option<PathBuf>,
}

impl Publish {
    pub(super) async fn run(&self, common: &Common) -> Result<Exit, Problem> {
        let output = common.output();
        let key = self.signing.read(common, &format!("publish {}", self.name))?;
        let path = self.absolute_path()?;
        let client = common.client();
        let version = self.version(&client, &key).await?;

        let mut progress = Progress::new(output, self.name.as_str());
        let mode = match (self.in_place, self.copy) {
            (true, _) => ImportMode::InPlace,
            (_, true) => ImportMode::Copy,
            _ => ImportMode::Auto,
        };
        let imported =
            import(&client, &Request { path, format: self.format, mode }, |event| progress.show(event)).await;
        progress.finish();
        let imported = imported?;
        imported.warnings.iter().for_each(|warning| warn(warning));
        let (image, new) = (imported.image, imported.new);
        let released = match &self.hold {
            Some(file) => self.hold(&client, &key, version, imported, file).await,
            None => release(&client, &key, &self.name, version, self.expires.as_secs(), imported).await,
        };
        let released = match released {
            Err(problem) if new && (problem.code == Code::Refused || self.hold.is_some()) => {
                return Err(take_back(&client, image, problem).await);
            }
            released => released?,
        };
        if output.is_json() {
            let line = Line::from(Event::Released(Box::new(released.clone())));
            output.print(&line, |_| String::new())?;
        } else {
            output.line(&show(&released))?;
        }
        if let Some(file) = &self.hold {
            say_held(file);
            return Ok(Exit::Done);
        }
        let Released { name, version, taken_by, problems, .. } = released;
        Ok(taken(&Posted { name, version, taken_by, problems }))
    }

    /// Signs a release of what was taken in and keeps it in a file. The master is kept until it is removed by hand or has
    /// its release.
    async fn hold(
        &self,
        client: &Client,
        key: &SigningKey,
        version: u64,
        imported: Imported,
        file: &Path,
    ) -> Result<Released, Problem> {
        let request = Fetch { master: MasterRef::Image(imported.image), wait: false };
        client.stream("/v1/fetch", &request).await?.last(|_| {}).await?;
        let release = statement(&self.name, version, self.expires.as_secs(), &imported);
        held::write(file, &release.sign(key), &format!("publish {}@{version}", self.name))?;
        Ok(Released { name: release.name, version, imported, taken_by: Vec::new(), problems: Vec::new() })
    }

    /// The version to release, after what would make the release fail in the end was looked at.
    async fn version(&self, client: &Client, key: &SigningKey) -> Result<u64, Problem> {
        let next: NextRelease = client.get(&format!("/v1/releases/{}", self.name)).await?;
        check_first(&next, key, self.hold.as_deref(), &format!("publish {}", self.name))?;
        match (self.version, next.newest) {
            (Some(version), Some(newest)) if version < newest => Err(Problem::new(
                Code::Refused,
                format!("publish {}@{version}", self.name),
                format!("version {newest} is out already; versions only grow"),
            )
            .todo(format!("leave --version out to make it {}", next.next))),
            (version, _) => Ok(version.unwrap_or(next.next)),
        }
    }

    fn absolute_path(&self) -> Result<PathBuf, Problem> {
        // Not resolved further: whether a link may be followed is the daemon's decision.
        let path = std::path::absolute(&self.file);
        let found = path.and_then(|path| std::fs::metadata(&path).map(|_| path));
        found.map_err(|error| {
            let code = if error.kind() == std::io::ErrorKind::NotFound { Code::NotFound } else { Code::Failed };
            Problem::new(code, format!("publish {}", self.file.display()), error)
        })
    }
}

/// Refuses a release that would not count: hosts do not trust the key, or one signature is not enough and it is not to be held
/// back in a new file.
pub(super) fn check_first(
    next: &NextRelease,
    key: &SigningKey,
    hold: Option<&Path>,
    what: &str,
) -> Result<(), Problem> {
    check_trusted(next, key, what)?;
    match hold {
        Some(file) => held::check_free(file, what),
        None if next.signatures > 1 => {
            let why = format!("a release needs {} signatures here, and this would have one", next.signatures);
            Err(Problem::new(Code::Refused, what, why).todo(
                "hold it back with --hold FILE, have other publishers sign it (`drover cosign FILE`), then `drover post FILE`",
            ))
        }
        None => Ok(()),
    }
}

fn check_trusted(next: &NextRelease, key: &SigningKey, what: &str) -> Result<(), Problem> {
    let publisher = key::public_half(key);
    if next.publishers.contains(&publisher) {
        return Ok(());
    }
    Err(Problem::new(Code::Refused, what, format!("hosts do not trust the publisher {publisher}")).todo(
        "use a key of the cluster (`drover-tracker init` made DIR/publisher.key), have the cluster trust it \
         (`drover-tracker publishers --add KEY`), or add it to the setting publishers of every host",
    ))
}

/// Removes the master that this command brought in, after its release was refused: nobody else would.
async fn take_back(client: &Client, image: ImageId, refused: Problem) -> Problem {
    let removed: Result<Removed, Problem> = client.delete(&format!("/v1/masters/{image}")).await;
    if let Err(problem) = removed {
        warn(&format!("the master that was taken in for it stays: {problem}"));
    }
    refused
}

/// Has the daemon take a file in.
pub(super) async fn import(client: &Client, request: &Request, see: impl FnMut(&Event)) -> Result<Imported, Problem> {
    match client.stream("/v1/publish", request).await?.last(see).await? {
        Event::Imported(imported) => Ok(imported),
        _ => Err(Problem::failed(format!("publish {}", request.path.display()), "the daemon ended without a result")),
    }
}

/// Signs and posts a release of what was taken in.
pub(super) async fn release(
    client: &Client,
    key: &SigningKey,
    name: &Name,
    version: u64,
    expires_s: u64,
    imported: Imported,
) -> Result<Released, Problem> {
    let release = statement(name, version, expires_s, &imported);
    let Posted { name, version, taken_by, problems } = post(client, release.sign(key), name, Some(key)).await?;
    Ok(Released { name, version, imported, taken_by, problems })
}

fn statement(name: &Name, version: u64, expires_s: u64, imported: &Imported) -> Release {
    let now = unix_now_s();
    Release {
        format: RELEASE_FORMAT,
        name: name.clone(),
        version,
        image: imported.image,
        content_len: imported.content_len,
        content_hash: imported.content_hash,
        created_unix_s: now,
        expires_unix_s: now + expires_s,
    }
}

/// Posts a release, with its item if the daemon takes part in the hash table and the key of who made the release is here.
pub(super) async fn post(
    client: &Client,
    signed: SignedRelease,
    name: &Name,
    key: Option<&SigningKey>,
) -> Result<Posted, Problem> {
    let NextRelease { secret, .. } = client.get(&format!("/v1/releases/{name}")).await?;
    let item = secret.zip(key).and_then(|(secret, key)| Item::sign(&signed, &secret, key).ok());
    client.post("/v1/releases", &PostRelease { release: signed, item: item.map(|item| item.signature) }).await
}

/// Tells what is wrong with what was posted, and how the command ends.
pub(super) fn taken(posted: &Posted) -> Exit {
    posted.problems.iter().for_each(|problem| warn(problem));
    if posted.taken_by.is_empty() {
        say("no tracker took the release: it is kept here, and posted as soon as a tracker answers");
        return Exit::TrackerUnreachable;
    }
    Exit::Done
}

/// Tells what comes after a release was held back.
pub(super) fn say_held(file: &Path) {
    let file = file.display();
    say(&format!(
        "held back in {file}; next: other publishers run `drover cosign {file}`, then `drover post {file}` here"
    ));
}

fn show(released: &Released) -> String {
    let imported = &released.imported;
    [
        format!("{}@{}", released.name, released.version),
        format!("image    {}", imported.image),
        format!("content  {} (BLAKE3), {} bytes", imported.content_hash, imported.content_len),
        format!("data     {} bytes ({})", imported.data_len, Bytes(imported.data_len)),
        format!("path     {}", imported.path.display()),
    ]
    .join("\n")
}
