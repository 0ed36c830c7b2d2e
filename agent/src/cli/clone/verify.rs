//! `drover clone verify`.

use std::path::Path;

use drover_protocol::id::ImageId;
use drover_protocol::release::Name;

use super::{held, lookup, of_record};
use crate::cli::output::warn;
use crate::cli::{Common, Exit};
use crate::control::Problem;
use crate::control::api::{Event, Master, MasterRef, Verify};
use crate::control::client::Client;
use crate::handover::{CloneRecord, Handover, HashError, ToHash, Verification};

pub(super) async fn run(common: &Common, handover: &Handover, clone: &Name, full: bool) -> Result<Exit, Problem> {
    let record = handover.get(clone).map_err(|error| lookup("clone verify", clone, &error))?;
    let client = common.client();
    let verification = if full {
        in_full(&client, handover, &record).await?
    } else {
        let (mut verification, master) = look(&client, handover, &record).await?;
        let problem = master.and_then(|master| master.problem).filter(|_| record.needs_master);
        if let Some(problem) = problem {
            verification.content_is_wrong(format!("its master is not as it should be: {problem}"));
        }
        verification
    };
    common.output().print(&verification, |verification| {
        let sound = if verification.is_sound() { "sound" } else { "NOT SOUND" };
        let first = format!("{clone}: {sound}{}", if verification.in_use { ", in use" } else { "" });
        let findings = verification.findings.iter().map(|finding| format!("  {}", finding.text));
        std::iter::once(first).chain(findings).collect::<Vec<_>>().join("\n")
    })?;
    Ok(if verification.is_sound() { Exit::Done } else { Exit::Failed })
}

/// What can be told without reading content, and what the daemon says of the master.
async fn look(
    client: &Client,
    handover: &Handover,
    record: &CloneRecord,
) -> Result<(Verification, Option<Master>), Problem> {
    let master = of_record(client, record).await?;
    let found = handover.verify(&record.name, master.as_ref().and_then(held).as_ref());
    Ok((found.map_err(|error| lookup("clone verify", &record.name, &error))?, master))
}

/// The same after all of what the clone rests on was read. That is kept: a file may have been mended since the clone was made.
async fn in_full(client: &Client, handover: &Handover, record: &CloneRecord) -> Result<Verification, Problem> {
    let (mut found, _) = look(client, handover, record).await?;
    let damage = match &found.to_hash {
        ToHash::Nothing => {
            found.stands_alone();
            return Ok(found);
        }
        ToHash::Master(_) if let Some(text) = gone(handover, record) => Some(text),
        ToHash::Master(image) => hash_master(client, &record.name, *image).await?,
        ToHash::Base(base) => hash_base(handover, &record.name, base)?,
    };
    let (mut found, master) = look(client, handover, record).await?;
    if let Some(text) = damage {
        found.content_is_wrong(text);
        return Ok(found);
    }
    found.content_is_right();
    if let (ToHash::Master(_), Some(master)) = (&found.to_hash, master.as_ref().and_then(held))
        && let Err(error) = handover.confirm(&record.name, &master)
    {
        warn(&format!("that the master is right could not be noted: {error}"));
    }
    Ok(found)
}

/// What is wrong with what a clone rests on beside the master, if anything is.
fn hash_base(handover: &Handover, clone: &Name, base: &Path) -> Result<Option<String>, Problem> {
    let hashed = match handover.hash_base(clone) {
        Ok(hashed) => hashed,
        Err(HashError::Clone(error)) => return Err(lookup("clone verify", clone, &error)),
        Err(error @ HashError::Unreadable { .. }) => return Ok(Some(error.to_string())),
    };
    if let Some(error) = hashed.unnoted {
        warn(&format!("what was found of {} could not be noted for other clones: {error}", base.display()));
    }
    let wrong = || format!("{} does not have the master's content; no clone is made on it from now on", base.display());
    Ok((!hashed.is_right).then(wrong))
}

/// That the master's file is gone, and what to do, if it is.
fn gone(handover: &Handover, record: &CloneRecord) -> Option<String> {
    let is_gone = matches!(record.master.path.try_exists(), Ok(false));
    let lost = handover.lost(std::slice::from_ref(record)).remove(&record.name).filter(|_| is_gone)?;
    Some(format!("{lost}; {}", lost.advice(&record.name)))
}

/// What is wrong with a master's content, if anything is.
async fn hash_master(client: &Client, clone: &Name, image: ImageId) -> Result<Option<String>, Problem> {
    let request = Verify { master: MasterRef::Image(image) };
    let verified = match client.stream("/v1/verify", &request).await?.last(|_| {}).await? {
        Event::Verified(verified) => verified,
        _ => return Err(Problem::failed(format!("clone verify {clone}"), "the daemon ended without a result")),
    };
    let named = verified.damaged.iter().take(NAMED).map(u32::to_string).collect::<Vec<_>>().join(" ");
    let damaged = verified.damaged_count;
    Ok((damaged > 0).then(|| format!("{damaged} chunks of its master are damaged: {named}")))
}

/// Has the daemon read a master that was found damaged: it notes what is, so that no clone is made of it and fetching mends it.
pub(super) async fn have_noted(client: &Client, clone: &Name, image: ImageId) {
    if let Err(problem) = hash_master(client, clone, image).await {
        warn(&format!("that the master is damaged could not be noted: {problem}"));
    }
}

/// How many damaged chunks are named.
const NAMED: usize = 20;
