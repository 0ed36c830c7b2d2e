//! `drover renew`: the newest release of a name, signed anew.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use drover_link::identity::unix_now_s;
use drover_protocol::release::{Name, Release};

use super::key::SigningArgs;
use super::publish::{check_first, post, say_held, taken};
use super::{Common, Exit, held};
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
    /// Write the release into this new file instead of handing it out, for other publishers to sign (`drover cosign`)
    #[arg(long, value_name = "FILE")]
    hold: Option<PathBuf>,
}

impl Renew {
    pub(super) async fn run(&self, common: &Common) -> Result<Exit, Problem> {
        let (name, what) = (&self.name, format!("renew {}", self.name));
        let key = self.signing.read(common, &what)?;
        let client = common.client();
        let next: NextRelease = client.get(&format!("/v1/releases/{name}")).await?;
        check_first(&next, &key, self.hold.as_deref(), &what)?;
        let Some(known) = next.release else {
            let why = "no release of that name is known here";
            return Err(
                Problem::new(Code::NotFound, what, why).todo("publish it, or wait until this host has heard of it")
            );
        };
        let now = unix_now_s();
        let release = Release { created_unix_s: now, expires_unix_s: now + self.expires.as_secs(), ..known.clone() };
        if known.says_all_of(&release) {
            let why = format!("{name}@{} is good for longer already", known.version);
            return Err(Problem::new(Code::Refused, what, why)
                .todo("hosts would not take one that ends before; give a longer --expires"));
        }
        let signed = release.sign(&key);
        if let Some(file) = &self.hold {
            held::write(file, &signed, &what)?;
            let Release { name, version, .. } = release;
            let posted = Posted { name, version, taken_by: Vec::new(), problems: Vec::new() };
            common.output().print(&posted, |Posted { name, version, .. }| format!("{name}@{version}"))?;
            say_held(file);
            return Ok(Exit::Done);
        }
        let posted = post(&client, signed, name, Some(&key)).await?;
        common.output().print(&posted, |Posted { name, version, .. }| format!("{name}@{version}"))?;
        Ok(taken(&posted))
    }
}
