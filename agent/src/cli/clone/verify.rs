//! `drover clone verify`.

use drover_protocol::id::ImageId;
use drover_protocol::release::Name;

use super::{as_source, lookup};
use crate::cli::{Common, Exit};
use crate::control::api::{Event, Master, MasterRef, Verify};
use crate::control::client::Client;
use crate::control::{Code, Problem};
use crate::handover::{Finding, Handover, Severity, ToHash};

pub(super) async fn run(common: &Common, handover: &Handover, clone: &Name, full: bool) -> Result<Exit, Problem> {
    let record = handover.get(clone).map_err(|error| lookup("clone verify", clone, &error))?;
    let client = common.client();
    let master: Option<Master> = match client.get(&format!("/v1/masters/{}", record.image)).await {
        Ok(master) => Some(master),
        Err(problem) if problem.code == Code::NotFound => None,
        Err(problem) => return Err(problem),
    };
    let source = master.as_ref().and_then(as_source);
    let mut verification =
        handover.verify(clone, source.as_ref()).map_err(|error| lookup("clone verify", clone, &error))?;
    if full {
        let damage = match &verification.to_hash {
            ToHash::Nothing => None,
            ToHash::Master(image) => hash_master(&client, clone, *image).await?,
            ToHash::Base(base) => match handover.hash_base(&record) {
                Ok(true) => None,
                Ok(false) => Some(format!("{} does not have the master's content", base.display())),
                Err(error) => Some(format!("{} can't be read: {error}", base.display())),
            },
        };
        match damage {
            Some(text) => verification.findings.insert(0, Finding { severity: Severity::Fault, text }),
            // What only the content could settle, it has settled.
            None if verification.to_hash != ToHash::Nothing => {
                verification.findings.retain(|finding| finding.severity != Severity::Doubt);
            }
            None => {}
        }
    }
    common.output().print(&verification, |verification| {
        let sound = if verification.is_sound() { "sound" } else { "NOT SOUND" };
        let first = format!("{clone}: {sound}{}", if verification.in_use { ", in use" } else { "" });
        let findings = verification.findings.iter().map(|finding| format!("  {}", finding.text));
        std::iter::once(first).chain(findings).collect::<Vec<_>>().join("\n")
    })?;
    Ok(if verification.is_sound() { Exit::Done } else { Exit::Failed })
}

/// What is wrong with a master's content, if anything is.
async fn hash_master(client: &Client, clone: &Name, image: ImageId) -> Result<Option<String>, Problem> {
    let request = Verify { master: MasterRef::Image(image) };
    let damaged = match client.stream("/v1/verify", &request).await?.last(|_| {}).await? {
        Event::Verified(verified) => verified.damaged_count,
        _ => return Err(Problem::failed(format!("clone verify {clone}"), "the daemon ended without a result")),
    };
    Ok((damaged > 0).then(|| format!("{damaged} chunks of its master are damaged")))
}
