//! The study: how NFS, HTTP, multicast, textbook schedules and the swarm scale, and how they take faults, in plots.
//!
//! One page that opens from the disk. Under each plot stands the scenario that gives it again, with its seeds; every point
//! of every line is a run, and all of them are in a table beside the page. The swarm is the real one, so it takes as long
//! as its machines take: beyond [`P2P_HOSTS_MOST`] hosts it has no points, and with multicast beyond [`HYBRID_HOSTS_MOST`]. What
//! depends on dice is run with several seeds; plots show the median, and the range of all.

mod fleet_size;
mod html;
mod rack_uplink;
mod slow_hosts;
mod source_death;
mod sweep;
mod vms;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::contender::{CompareError, Contender};
use crate::plot::PlotError;
use crate::scenario::ScenarioError;

/// Most hosts for which the study runs the swarm.
pub const P2P_HOSTS_MOST: usize = 100;

/// Most hosts for which the study runs the swarm with multicast.
pub const HYBRID_HOSTS_MOST: usize = 1000;

/// Rate of a host's wire, each way.
const HOST_MBIT_S: u32 = 1000;

/// How much is run.
#[derive(Clone, PartialEq, Debug)]
pub struct Extent {
    /// Hosts that fetch, where their number is what changes.
    pub fleets: Vec<usize>,
    /// Most hosts for which the swarm is run.
    pub p2p_hosts_most: usize,
    /// Most hosts for which the swarm with multicast is run.
    pub hybrid_hosts_most: usize,
    /// Hosts that fetch, where it does not change.
    pub hosts: usize,
    /// Length of the image in MiB.
    pub image_mib: u64,
    /// The swarm is run with each, with multicast and without; the plots show the median and the range.
    pub seeds: Vec<u64>,
}

/// All plots.
#[derive(Clone, PartialEq, Debug)]
pub struct Study {
    /// In the page's order.
    pub plots: Vec<Plot>,
}

/// One plot with what it comes from.
#[derive(Clone, PartialEq, Debug)]
pub struct Plot {
    /// Its file's name without the ending.
    pub name: &'static str,
    /// What it is about.
    pub title: &'static str,
    /// What it shows and what to know of it.
    pub text: String,
    /// The scenario, as it is written.
    pub scenario: String,
    /// The drawing.
    pub svg: String,
    /// All that was measured for it.
    pub points: Vec<Point>,
}

/// One measured value.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Point {
    /// Name of the plot.
    pub plot: String,
    /// Name of the line or bar.
    pub line: String,
    /// Where it is on the axis to the right, if there is one.
    pub x: f64,
    /// How high it is; nothing if it was never reached.
    pub y: Option<f64>,
    /// Seed of the run.
    pub seed: u64,
}

/// Why there is no study.
#[derive(Debug, thiserror::Error)]
pub enum StudyError {
    /// A scenario of the study is none.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// A contender failed.
    #[error(transparent)]
    Compare(#[from] CompareError),
    /// A plot can't be drawn.
    #[error(transparent)]
    Plot(#[from] PlotError),
    /// The table of points can't be written.
    #[error("can't write {path}: {cause}")]
    Table {
        /// Which file.
        path: PathBuf,
        /// Why.
        cause: csv::Error,
    },
    /// A file or folder can't be written.
    #[error("can't write {path}: {cause}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
}

impl Extent {
    /// All of it.
    pub fn full() -> Self {
        Extent {
            fleets: vec![1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000],
            p2p_hosts_most: P2P_HOSTS_MOST,
            hybrid_hosts_most: HYBRID_HOSTS_MOST,
            hosts: 16,
            image_mib: 1024,
            seeds: vec![1, 2, 3],
        }
    }

    /// The same plots of small fleets and a small image, to see that they are made.
    pub fn quick() -> Self {
        Extent {
            fleets: vec![1, 10, 100],
            p2p_hosts_most: 10,
            hybrid_hosts_most: 10,
            hosts: 8,
            image_mib: 64,
            seeds: vec![1, 2],
        }
    }

    /// Most hosts for which a contender is run, if there is a limit.
    fn hosts_most(&self, contender: Contender) -> Option<usize> {
        match contender {
            Contender::P2p => Some(self.p2p_hosts_most),
            Contender::Hybrid => Some(self.hybrid_hosts_most),
            _ => None,
        }
    }

    /// What is common to the scenarios of fleets, in TOML.
    fn base(&self) -> String {
        // Two milliseconds are a quarter of what 1 MiB takes alone: rates found anew four times as often change 0.3 % of the time.
        format!(
            "image_mib = {}\nup_mbit_s = {HOST_MBIT_S}\ndown_mbit_s = {HOST_MBIT_S}\nlatency_us = 100\nquantum_us = 2000\n",
            self.image_mib
        )
    }

    /// Seconds that the image takes over a host's wire, headers left aside.
    fn copy_seconds(&self) -> f64 {
        (self.image_mib << 20) as f64 * 8.0 / (f64::from(HOST_MBIT_S) * 1e6)
    }
}

impl Study {
    /// Runs everything. `tell` is told of each plot when it is begun.
    ///
    /// # Errors
    /// A run's result is impossible, or a plot can't be drawn.
    pub fn run(extent: &Extent, mut tell: impl FnMut(&str)) -> Result<Self, StudyError> {
        let mut plots = Vec::new();
        tell("fleets of all sizes");
        plots.push(fleet_size::plot(extent)?);
        tell("slow hosts");
        plots.push(slow_hosts::plot(extent)?);
        tell("the source dies");
        plots.extend(source_death::plots(extent)?);
        tell("racks");
        plots.push(rack_uplink::plot(extent)?);
        tell("machines on NFS");
        plots.extend(vms::plots(extent)?);
        Ok(Study { plots })
    }

    /// Writes `study.html`, `points.csv` and an SVG for each plot into a folder, which is made.
    ///
    /// # Errors
    /// One of them can't be written.
    pub fn write(&self, folder: &Path) -> Result<(), StudyError> {
        let unable = |path: &Path| {
            let path = path.to_owned();
            move |cause| StudyError::Write { path, cause }
        };
        std::fs::create_dir_all(folder).map_err(unable(folder))?;
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).map_err(unable(&path))
        };
        for plot in &self.plots {
            write(&format!("{}.svg", plot.name), &plot.svg)?;
        }
        write("study.html", &html::page(self))?;
        let path = folder.join("points.csv");
        self.write_points(&path).map_err(|cause| StudyError::Table { path, cause })
    }

    fn write_points(&self, path: &Path) -> Result<(), csv::Error> {
        let mut writer = csv::Writer::from_path(path)?;
        self.plots.iter().flat_map(|plot| &plot.points).try_for_each(|point| writer.serialize(point))?;
        Ok(writer.flush()?)
    }
}
