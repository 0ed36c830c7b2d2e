//! `lab study`: which copy-on-write technique costs a virtual machine what, as an old study asked and with what there is
//! today.
//!
//! The study compared sparse files, qcow2, VHD, dm-snapshots and LVM snapshots under KVM and Xen, sequentially and at
//! random, and chose qcow2 for KVM and VHD for Xen. Here Drover's own drivers make the clones, all of one master on one
//! file system, and each is loaded as a disk ([`blocks`], by fio) and as the disk under a file system ([`files`], by
//! Bonnie++); those that need a device-mapper, in a virtual machine that has one ([`machine`], by fio). A figure is the ratio to the plain file of the same round, with the same program on the same path: what that
//! path costs is in both, and draws ratios towards 1. In every round techniques take turns, and who begins changes.
//!
//! Master and clone are cold: qemu opens both with O_DIRECT, and they are taken out of the page cache before. What can't be
//! measured is told with its reason, in the table.

mod blocks;
mod export;
mod figures;
mod files;
mod filesystem;
mod fio;
mod machine;
mod operation;
mod plot;
mod table;
mod technique;
mod workshop;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::ValueEnum;
use serde_json::json;

use self::export::{Aio, Server};
use self::figures::{Figures, Sample};
use self::fio::Load;
use self::machine::Machine;
use self::operation::{Operation, Part};
use self::technique::Technique;
use self::workshop::Workshop;
use crate::contenders::program;
use crate::goal;
use crate::scratch;

/// What to measure, and how long.
#[derive(clap::Args, Debug)]
pub(crate) struct Arguments {
    /// Only these techniques, and what they are compared with
    #[arg(long, value_delimiter = ',', value_name = "TECHNIQUE", value_enum)]
    only: Vec<Technique>,
    /// Only these parts
    #[arg(long, value_delimiter = ',', value_name = "PART", value_enum)]
    part: Vec<Part>,
    /// How many rounds
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = goal::at_least_once)]
    repeat: usize,
    /// Length of the master and so of every disk
    #[arg(long, default_value_t = 512, value_name = "MIB", value_parser = clap::value_parser!(u64).range(64..))]
    size: u64,
    /// How long each read lasts; writes are an amount
    #[arg(long, default_value_t = 2, value_name = "S", value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// How qemu hands reads and writes to the kernel
    #[arg(long, default_value = "native", value_enum)]
    aio: Aio,
    /// Where table, JSON and plot are written, besides the table on standard output
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Where the file system of the study lies; a folder on the disk to measure with
    #[arg(long, value_name = "DIR", default_value_os_t = std::env::temp_dir())]
    scratch: PathBuf,
    /// Only see that everything works: one round of the least size
    #[arg(long, conflicts_with_all = ["repeat", "size", "seconds"])]
    smoke: bool,
}

/// Measures everything that was asked for.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Box<dyn Error>> {
    let study = Study::of(arguments);
    study.check_installed()?;
    let seed = drover_harness::seed("lab study");
    let scratch = scratch::make(&arguments.scratch)?;
    let figures = study.measure(scratch.path(), seed)?;
    let table = table::table(&study.parts, &study.techniques, &figures);
    println!("{table}");
    if let Some(folder) = &arguments.out {
        std::fs::create_dir_all(folder)?;
        std::fs::write(folder.join("table.md"), &table)?;
        let json = study.json(&figures, seed);
        std::fs::write(folder.join("study.json"), format!("{json:#}\n"))?;
        plot::draw(&folder.join("plot.svg"), &study.parts, &study.techniques, &figures)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What is measured, and how.
struct Study {
    parts: Vec<Part>,
    techniques: Vec<Technique>,
    rounds: usize,
    mib: u64,
    seconds: u32,
    aio: Aio,
}

impl Study {
    fn of(arguments: &Arguments) -> Study {
        let wanted = |technique: &Technique| {
            let only = &arguments.only;
            only.is_empty() || only.iter().any(|one| one == technique || one.yardstick() == *technique)
        };
        let parts: &[Part] = match &arguments.part[..] {
            // A machine takes a minute even to do next to nothing.
            [] if arguments.smoke => &[Part::Blocks, Part::Files],
            [] => Part::value_variants(),
            some => some,
        };
        let (rounds, mib, seconds) =
            if arguments.smoke { (1, 64, 1) } else { (arguments.repeat, arguments.size, arguments.seconds) };
        Study {
            parts: parts.to_vec(),
            techniques: Technique::ALL.into_iter().filter(wanted).collect(),
            rounds,
            mib,
            seconds,
            aio: arguments.aio,
        }
    }

    /// Names everything that is still to be installed, at once and before anything is measured.
    fn check_installed(&self) -> Result<(), String> {
        let mut needed = vec![("mkfs.xfs", "xfsprogs"), ("losetup", "mount")];
        needed.extend([("qemu-img", "qemu-utils"), ("qemu-storage-daemon", "qemu-utils")]);
        if self.parts.iter().any(|part| *part != Part::Files) {
            needed.push(("fio", "fio"));
        }
        if self.parts.contains(&Part::Files) {
            needed.extend([("bonnie++", "bonnie++"), ("mkfs.ext4", "e2fsprogs"), ("nbdfuse", "libnbd-bin")]);
        }
        if self.parts.contains(&Part::Machine) {
            machine::check_brought()?;
        }
        let mounts = self.parts.contains(&Part::Blocks) && self.techniques.contains(&Technique::VhdFixed);
        if mounts {
            needed.push(("vhdimount", "libvhdi-utils"));
        }
        if let Some(missing) = program::missing_packages(&needed) {
            return Err(format!("programs are missing: {missing}"));
        }
        let has_fuse = Path::new("/dev/fuse").exists();
        if (mounts || self.parts.contains(&Part::Files)) && !has_fuse {
            return Err("there is no /dev/fuse: modprobe fuse, or leave out the part files and the VHDs".to_owned());
        }
        Ok(())
    }

    fn measure(&self, folder: &Path, seed: u64) -> Result<Figures, Box<dyn Error>> {
        let mut figures = Figures::default();
        if self.parts.iter().any(|part| *part != Part::Machine) {
            let workshop = Workshop::build(folder, self.mib, seed)?;
            let server = Server { folder, workshop: &workshop, aio: self.aio };
            let load = Load { seconds: self.seconds, disk_len: workshop.disk_len(), seed };
            self.rounds(&mut figures, Part::Blocks, |turn, round| blocks::measure(&server, &load, turn, round))?;
            self.rounds(&mut figures, Part::Files, |turn, round| files::measure(&server, turn, round, seed))?;
            workshop.check_master()?;
        }
        if self.parts.contains(&Part::Machine) {
            let mut machine = Machine::start(self.seconds, seed)?;
            self.rounds(&mut figures, Part::Machine, |turn, round| machine.measure(turn, round))?;
        }
        Ok(figures)
    }

    /// All rounds of a part, if it is wanted.
    fn rounds(
        &self,
        figures: &mut Figures,
        part: Part,
        mut measure: impl FnMut(&[Technique], usize) -> Result<Vec<Sample>, Box<dyn Error>>,
    ) -> Result<(), Box<dyn Error>> {
        let rounds = if self.parts.contains(&part) { self.rounds } else { 0 };
        for round in 0..rounds {
            figures.0.extend(measure(&self.turn(part, round), round)?);
            eprintln!("{part}: round {} of {rounds}", round + 1);
        }
        Ok(())
    }

    /// The techniques in the order of a round: each round begins with another one.
    fn turn(&self, part: Part, round: usize) -> Vec<Technique> {
        let mut turn: Vec<Technique> =
            Technique::of(part).filter(|technique| self.techniques.contains(technique)).collect();
        let begin = round % turn.len().max(1);
        turn.rotate_left(begin);
        turn
    }

    fn json(&self, figures: &Figures, seed: u64) -> serde_json::Value {
        let cell = |part: Part, operation: Operation, technique: Technique| {
            let (speed, ratio) = (figures.speed(part, operation, technique), figures.ratio(part, operation, technique));
            json!({ "part": part, "operation": operation, "unit": operation.unit(), "technique": technique,
                    "yardstick": technique.yardstick(), "speed": speed, "ratio": ratio,
                    "obstacle": technique.obstacle(operation) })
        };
        let mut summary = Vec::new();
        for &part in &self.parts {
            for technique in self.turn(part, 0) {
                summary.extend(part.operations().iter().map(|&operation| cell(part, operation, technique)));
            }
        }
        json!({ "seed": seed, "rounds": self.rounds, "mib": self.mib, "seconds": self.seconds,
                "aio": format!("{:?}", self.aio).to_lowercase(), "versions": versions(), "summary": summary,
                "samples": figures })
    }
}

/// The first line that each program says of its version.
fn versions() -> serde_json::Value {
    let programs = [("fio", "--version"), ("qemu-storage-daemon", "--version"), ("vhdimount", "-V"), ("uname", "-r")];
    let version = |(program, option): (&str, &str)| {
        let said = Command::new(program).arg(option).output().ok()?;
        let line = String::from_utf8_lossy(&said.stdout).lines().next()?.to_owned();
        Some((program.to_owned(), json!(line)))
    };
    programs.into_iter().filter_map(version).collect::<serde_json::Map<_, _>>().into()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn study(line: &[&str]) -> Study {
        Study::of(&Line::parse_from([&["study"], line].concat()).arguments)
    }

    #[test]
    fn what_a_technique_is_compared_with_is_measured_too() {
        assert_eq!(study(&["--only", "vhd"]).techniques, [Technique::VhdFixed, Technique::Vhd]);
        assert_eq!(study(&["--only", "qcow2-fast"]).techniques, [Technique::Plain, Technique::Qcow2Fast]);
        assert_eq!(study(&[]).techniques, Technique::ALL);
    }

    #[test]
    fn every_round_begins_with_another() {
        let study = study(&["--only", "reflink,qcow2-compat"]);
        let first = |round| study.turn(Part::Blocks, round)[0];
        assert_eq!(
            [0, 1, 2, 3].map(first),
            [Technique::Plain, Technique::Reflink, Technique::Qcow2Compat, Technique::Plain]
        );
    }
}
