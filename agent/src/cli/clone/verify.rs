//! `drover clone verify`.

use drover_protocol::id::ImageId;
use drover_protocol::release::Name;

use super::{held, lookup, of_record};
use crate::cli::output::warn;
use crate::cli::{Common, Exit};
use crate::control::Problem;
use crate::control::api::{Event, MasterRef, Verify};
use crate::control::client::Client;
use crate::handover::{Finding, Handover, Severity, ToHash};

pub(super) async fn run(common: &Common, handover: &Handover, clone: &Name, full: bool) -> Result<Exit, Problem> {
    let record = handover.get(clone).map_err(|error| lookup("clone verify", clone, &error))?;
    let client = common.client();
    let master = of_record(&client, &record).await?;
    let source = master.as_ref().and_then(held);
    let mut verification =
        handover.verify(clone, source.as_ref()).map_err(|error| lookup("clone verify", clone, &error))?;
    let problem = master.and_then(|master| master.problem).filter(|_| record.needs_master);
    if let Some(problem) = problem.filter(|_| !full) {
        let text = format!("its master is not as it should be: {problem}");
        verification.findings.insert(0, Finding { severity: Severity::Fault, text });
    }
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
            // What only the content could settle, it has settled, and that is kept: the file may have been mended.
            None if verification.to_hash != ToHash::Nothing => {
                verification.findings.retain(|finding| finding.severity != Severity::Doubt);
                if let (ToHash::Master(_), Some(source)) = (&verification.to_hash, &source)
                    && let Err(error) = handover.confirm(clone, source)
                {
                    warn(&format!("that the master is right could not be noted: {error}"));
                }
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
    let verified = match client.stream("/v1/verify", &request).await?.last(|_| {}).await? {
        Event::Verified(verified) => verified,
        _ => return Err(Problem::failed(format!("clone verify {clone}"), "the daemon ended without a result")),
    };
    let named = verified.damaged.iter().take(NAMED).map(u32::to_string).collect::<Vec<_>>().join(" ");
    let damaged = verified.damaged_count;
    Ok((damaged > 0).then(|| format!("{damaged} chunks of its master are damaged: {named}")))
}

/// How many damaged chunks are named.
const NAMED: usize = 20;
