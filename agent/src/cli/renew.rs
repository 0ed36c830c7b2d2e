//! `drover renew`: the newest release of a name, signed anew.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use drover_protocol::release::{Name, Release};

use super::key::SigningArgs;
use super::output::{say, warn};
use super::publish::{check_trusted, post};
use super::{Common, Exit};
use crate::control::api::{NextRelease, Posted};
use crate::control::{Code, Problem};
use crate::quantity::parse_duration;

/// Sign the newest release of a name anew, so that hosts may go on accepting it
///
/// A release that expires soon and is renewed in time, as by a timer, keeps whoever stands between a host and its fleet from
/// holding back a newer one unnoticed: the status of a subscribed host warns of a newest release that has expired.
#[derive(Args, Debug)]
pub(super) struct Renew {
    /// Which name
    name: Name,
    #[command(flatten)]
    signing: SigningArgs,
    /// From when on hosts must not accept it any more, counted from now
    #[arg(long, default_value = "365d", value_name = "TIME", value_parser = parse_duration)]
    expires: Duration,
}

impl Renew {
    pub(super) async fn run(&self, common: &Common) -> Result<Exit, Problem> {
        let (name, what) = (&self.name, format!("renew {}", self.name));
        let key = self.signing.read(common, &what)?;
        let client = common.client();
        let next: NextRelease = client.get(&format!("/v1/releases/{name}")).await?;
        check_trusted(&next, &key, &what)?;
        let Some(known) = next.release else {
            let why = "no release of that name is known here";
            return Err(
                Problem::new(Code::NotFound, what, why).todo("publish it, or wait until this host has heard of it")
            );
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let release = Release { created_unix_s: now, expires_unix_s: now + self.expires.as_secs(), ..known.clone() };
        if known.says_all_of(&release) {
            let why = format!("{name}@{} is good for longer already", known.version);
            return Err(Problem::new(Code::Refused, what, why)
                .todo("hosts would not take one that ends before; give a longer --expires"));
        }
        let posted = post(&client, &key, &release).await?;
        common.output().print(&posted, |Posted { name, version, .. }| format!("{name}@{version}"))?;
        posted.problems.iter().for_each(|problem| warn(problem));
        if posted.taken_by.is_empty() {
            say("no tracker took the release: it is kept here, and posted as soon as a tracker answers");
            return Ok(Exit::TrackerUnreachable);
        }
        Ok(Exit::Done)
    }
}
