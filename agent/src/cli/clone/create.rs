//! `drover clone create`: one clone, or many at once.

use std::path::PathBuf;

use clap::Args;
use drover_protocol::release::Name;
use serde::Serialize;

use super::verify::have_noted;
use super::{find, refuse};
use crate::cli::output::{say, warn};
use crate::cli::{Common, Exit};
use crate::control::api::MasterRef;
use crate::control::{Code, Problem};
use crate::handover::{Choice, CloneRecord, CloneSpec, Created, DriverName, Handover, Hypervisor, NotTaken, Profile};
use crate::quantity::{Bytes, parse_disk_size};

/// Make a clone, or many; prints their paths
///
/// With --count N, {} in the clone's name and in its path stands for 1 to N, and all N are made or none: `drover clone
/// create debian-13 web-{} --out /srv/vm/web-{}.img --count 100`.
#[derive(Args, Debug)]
pub(super) struct Create {
    /// NAME, NAME@VERSION, image id or its first 8 digits or more
    master: MasterRef,
    /// What to call the clone; with --count it has {} in it
    clone: String,
    /// Where it shall be, and nothing be yet: an absolute path, of a logical volume /dev/GROUP/VOLUME
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
    /// auto, reflink, qcow2, vhd, lvm (thin or thick), lvm-thin, lvm-thick, dm or copy; auto takes the first that works
    #[arg(long, default_value = "auto")]
    driver: Choice,
    /// What is to run it: any, kvm, xen or hyperv; auto takes only what that reads
    #[arg(long, default_value = "any")]
    hypervisor: Hypervisor,
    /// How a qcow2 clone is laid out: compat (every reader takes it) or fast (needs qemu 5.2 wherever it runs)
    #[arg(long)]
    profile: Option<Profile>,
    /// Size of its disk, if larger than the master's: 20G or 20GiB; as in qemu, K, M, G and T are powers of 1024
    #[arg(long, value_parser = parse_disk_size)]
    size: Option<u64>,
    /// How much of it can be written before a dm or lvm-thick snapshot is full; all of it by default
    #[arg(long, value_parser = parse_disk_size, value_name = "SIZE")]
    room: Option<u64>,
    /// The thin pool of the volume group, if it has more than one
    #[arg(long)]
    pool: Option<String>,
    /// How many, 1000 at the most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    count: Option<u32>,
}

impl Create {
    pub(super) async fn run(&self, common: &Common, handover: Handover) -> Result<Exit, Problem> {
        let what = format!("clone create {} {}", self.master, self.clone);
        let specs = self.specs().map_err(|error| Problem::new(Code::Usage, &what, error))?;
        let client = common.client();
        let master = find(&client, &self.master).await?;
        let (image, first) = (master.image, specs.first().map(|spec| spec.name.clone()));
        // A full copy takes minutes, and so do many clones.
        let made = tokio::select! {
            made = tokio::task::spawn_blocking(move || handover.create_all(&master, &specs)) => made,
            _ = tokio::signal::ctrl_c() => {
                warn(
                    "it was interrupted: `drover clone activate --all` clears or completes what is unfinished, as does the \
                     daemon when it starts, of what its own user makes",
                );
                return Ok(Exit::Interrupted);
            }
        };
        let created = match made.map_err(|error| Problem::failed(&what, error))? {
            Ok(created) => created,
            Err(error) => {
                if let (true, Some(first)) = (error.found_damage(), first) {
                    have_noted(&client, &first, image).await;
                }
                return Err(refuse(&what, &error));
            }
        };
        // Many clones have the same to say.
        let mut warnings: Vec<&String> = created.iter().flat_map(|created| &created.warnings).collect();
        warnings.dedup();
        warnings.iter().for_each(|warning| warn(warning));
        let made: Vec<Made<'_>> = created.iter().map(Made::from).collect();
        let output = common.output();
        match (&made[..], self.count) {
            ([one], None) => output.print(one, Made::path)?,
            (many, _) => output.print(&many, |many| many.iter().map(Made::path).collect::<Vec<_>>().join("\n"))?,
        }
        if !output.is_json() {
            created.first().into_iter().for_each(|first| tell(first, created.len()));
        }
        Ok(Exit::Done)
    }

    fn specs(&self) -> Result<Vec<CloneSpec>, String> {
        let out = self.out.to_str().ok_or_else(|| format!("{} is no UTF-8 text", self.out.display()))?;
        let numbers: Vec<Option<u32>> = match self.count {
            None => vec![None],
            Some(_) if !self.clone.contains(NUMBER) || !out.contains(NUMBER) => {
                return Err(format!("with --count the name and the path of the clone must have {NUMBER} in them"));
            }
            Some(count) => (1..=count).map(Some).collect(),
        };
        numbers.into_iter().map(|number| self.spec(out, number)).collect()
    }

    fn spec(&self, out: &str, number: Option<u32>) -> Result<CloneSpec, String> {
        let numbered = |text: &str| number.map_or(text.to_owned(), |number| text.replace(NUMBER, &number.to_string()));
        let name: Name = numbered(&self.clone).parse().map_err(|error| format!("{error}"))?;
        let out = PathBuf::from(numbered(out));
        Ok(CloneSpec {
            driver: self.driver,
            hypervisor: self.hypervisor,
            profile: self.profile,
            disk_len: self.size,
            room_len: self.room,
            pool: self.pool.clone(),
            ..CloneSpec::new(name, out)
        })
    }
}

/// What `clone create --json` prints of a clone.
#[derive(Serialize)]
struct Made<'a> {
    #[serde(flatten)]
    record: &'a CloneRecord,
    not_taken: &'a [NotTaken],
    not_tried: &'a [DriverName],
    warnings: &'a [String],
}

impl Made<'_> {
    /// Where a guest finds it.
    fn path(&self) -> String {
        self.record.device.as_ref().unwrap_or(&self.record.path).display().to_string()
    }
}

impl<'a> From<&'a Created> for Made<'a> {
    fn from(created: &'a Created) -> Self {
        let Created { record, not_taken, not_tried, warnings } = created;
        Made { record, not_taken, not_tried, warnings }
    }
}

fn tell(created: &Created, count: usize) {
    let record = &created.record;
    let rests = match &record.base {
        Some(base) => format!("rests on {}", base.display()),
        None if record.needs_master => "rests on the master, which stays until the clone goes".to_owned(),
        None => "stands alone".to_owned(),
    };
    let what = if count == 1 { format!("clone {}", record.name) } else { format!("{count} clones") };
    say(&format!("{what}: made by {}, {} disk, {rests}", record.driver, Bytes(record.disk_len)));
    created.not_taken.iter().for_each(|other| say(&format!("  {} was not taken: {}", other.driver, other.reason)));
    if !created.not_tried.is_empty() {
        let others = created.not_tried.iter().map(|driver| driver.as_str()).collect::<Vec<_>>().join(", ");
        say(&format!("  not tried, since {} comes first: {others}", record.driver));
    }
}

/// Stands for a clone's number.
const NUMBER: &str = "{}";
