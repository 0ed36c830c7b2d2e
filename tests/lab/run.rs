//! `lab run`: every case with every contender, one after the other.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;

use drover_harness::TestImage;
use tempfile::TempDir;

use crate::case::Case;
use crate::contenders::{self, Contender, ContenderError, Delivery, Stage};
use crate::goal;
use crate::measure::Meter;
use crate::network::Network;
use crate::report::{self, Entry, Run};
use crate::scratch;

/// What to run.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// Which cases; all that have a goal by default
    cases: Vec<String>,
    /// Which contenders; all by default
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    contender: Vec<String>,
    /// How often each; the table shows the run whose last host was the median
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = goal::at_least_once)]
    repeat: usize,
    /// Where table, JSON and plots are written, besides the table on standard output
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Where hosts keep their files; a folder on the disk to measure with
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    scratch: PathBuf,
    /// Keep the hosts' files and the programs' logs
    #[arg(long)]
    keep: bool,
}

/// Runs what was asked for. Fails if a contender that is installed failed, or delivered something else than the image.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Box<dyn Error>> {
    let cases = Case::select(&arguments.cases)?;
    let chosen = choose(&arguments.contender)?;
    let seed = drover_harness::seed("lab");
    let scratch = scratch::make(&arguments.scratch)?;
    let mut entries = Vec::new();
    for case in &cases {
        let image = TestImage::make(&scratch.path().join("image.raw"), case.image_bytes(), case.image_bytes(), seed);
        for contender in &chosen {
            let entry = compete(case, contender.as_ref(), &image.path, &scratch, arguments);
            eprintln!("{}: {}", case.name, entry.summary());
            entries.push(entry);
        }
    }
    let failed = entries.iter().any(Entry::failed);
    println!("{}", report::table(&cases, &entries));
    if let Some(folder) = &arguments.out {
        report::write(folder, &cases, &entries, seed)?;
    }
    if arguments.keep {
        let kept = arguments.scratch.join(format!("drover-lab-kept-{seed}"));
        std::fs::rename(scratch.keep(), &kept)?;
        eprintln!("kept: {}", kept.display());
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn choose(names: &[String]) -> Result<Vec<Box<dyn Contender>>, Box<dyn Error>> {
    let all = contenders::all();
    if let Some(unknown) = names.iter().find(|name| all.iter().all(|contender| contender.name() != **name)) {
        return Err(format!("there is no contender {unknown:?}; `lab list` names all").into());
    }
    let wanted = |contender: &dyn Contender| names.is_empty() || names.iter().any(|name| name == contender.name());
    Ok(all.into_iter().filter(|contender| wanted(contender.as_ref())).collect())
}

/// All repetitions of one contender in one case.
fn compete(case: &Case, contender: &dyn Contender, image: &Path, scratch: &TempDir, arguments: &Arguments) -> Entry {
    if let Some(missing) = contender.missing() {
        return Entry::missing(case, contender.name(), missing);
    }
    let mut runs = Vec::new();
    for repetition in 0..arguments.repeat {
        let folder = scratch.path().join(format!("{}-{}-{repetition}", case.name, contender.name()));
        let run = once(case, contender, image, &folder);
        if !arguments.keep {
            scratch::remove(&folder);
        }
        match run {
            Ok(run) => runs.push(run),
            Err(error) => return Entry::broken(case, contender.name(), error.to_string()),
        }
    }
    Entry::ran(case, contender.name(), runs)
}

/// One run of one contender. What it leaves in `folder` is the caller's to remove.
pub(crate) fn once(case: &Case, contender: &dyn Contender, image: &Path, folder: &Path) -> Result<Run, ContenderError> {
    let unable = |cause| ContenderError::File { what: format!("make the folder {}", folder.display()), cause };
    std::fs::create_dir_all(folder).map_err(unable)?;
    // What an earlier run left to be written is not this one's burden.
    rustix::fs::sync();
    let network = Arc::new(Network::build(case)?);
    let meter = Meter::new(Arc::clone(&network), folder);
    let delivery = contender.run(&Stage::new(&network, case, image, folder, &meter))?;
    meter.stop()?;
    let measured = meter.finish();
    compare(&delivery, case, image)?;
    let run = Run::new(case, delivery, &measured);
    run.check().map_err(ContenderError::Impossible)?;
    Ok(run)
}

/// Every receiver has a file, and it is the image.
fn compare(delivery: &Delivery, case: &Case, image: &Path) -> Result<(), ContenderError> {
    for host in case.receivers() {
        let refuse = |said: String| ContenderError::Answer { what: format!("host {host}"), said };
        let finished = delivery.finished.iter().find(|finished| finished.host == host);
        let finished = finished.ok_or_else(|| refuse("no file".to_owned()))?;
        let mut compare = Command::new("cmp");
        let output = compare.arg(image).arg(&finished.file).output();
        let output = output.map_err(|cause| ContenderError::Start { what: "cmp".to_owned(), cause })?;
        if !output.status.success() {
            let said = [output.stdout, output.stderr].concat();
            return Err(refuse(format!("its file differs: {}", String::from_utf8_lossy(&said).trim())));
        }
    }
    Ok(())
}
