//! Running fio, and reading its JSON.

use std::error::Error;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;

use super::export::{Place, uri};
use super::operation::Operation;
use crate::contenders::program;

/// How long and how much fio does.
pub(super) struct Load {
    /// How long a read lasts.
    pub(super) seconds: u32,
    /// Length of the disk in bytes.
    pub(super) disk_len: u64,
    /// Where the random places come from: the same for every technique, and for first write and rewrite.
    pub(super) seed: u64,
}

impl Load {
    /// Puts it on a served clone, and gives what was done in a second, in the operation's unit.
    pub(super) fn run(&self, operation: Operation, place: &Place, folder: &Path) -> Result<f64, Box<dyn Error>> {
        let report = folder.join("fio.json");
        let mut fio = Command::new("fio");
        fio.current_dir(folder).args(["--name=study", "--output-format=json"]).arg("--output").arg(&report);
        match place {
            Place::Nbd { socket } => fio.args(["--ioengine=nbd", &format!("--uri={}", uri(socket))]),
            Place::File(file) => {
                fio.args(["--ioengine=libaio", "--direct=1", "--readonly"]).arg("--filename").arg(file)
            }
        };
        program::output(fio.args(self.arguments(operation)))?;
        let value = speed(&std::fs::read_to_string(&report)?, operation)?;
        Ok(value)
    }

    /// Reads last a time. Writes are an amount, the same for all: a technique that is faster must not write more, since
    /// more first writes find a cluster that is there already. A sixteenth of all pages, in random order, is a write for
    /// each 64 KiB in the mean. What was written is on the disk when the clock stops.
    pub(super) fn arguments(&self, operation: Operation) -> Vec<String> {
        let shape = match operation {
            Operation::SequentialRead => ["--rw=read", "--bs=1m", "--iodepth=4"],
            Operation::RandomRead => ["--rw=randread", "--bs=4k", "--iodepth=16"],
            Operation::RandomFirstWrite | Operation::RandomRewrite => ["--rw=randwrite", "--bs=4k", "--iodepth=16"],
            _ => ["--rw=write", "--bs=1m", "--iodepth=4"],
        };
        let mut arguments: Vec<String> = shape.map(str::to_owned).into();
        arguments.push(format!("--size={}", self.disk_len));
        arguments.push(format!("--randseed={}", self.seed));
        if !operation.writes() {
            arguments.extend(["--time_based".to_owned(), format!("--runtime={}", self.seconds)]);
            return arguments;
        }
        arguments.push("--end_fsync=1".to_owned());
        if operation.is_random() {
            arguments.push(format!("--io_size={}", self.disk_len / 16));
        }
        arguments
    }
}

/// What fio prints, as far as it is looked at.
#[derive(Deserialize)]
struct Report {
    jobs: Vec<Job>,
}

#[derive(Deserialize)]
struct Job {
    error: i64,
    read: Direction,
    write: Direction,
}

#[derive(Deserialize)]
struct Direction {
    bw_bytes: f64,
    iops: f64,
    total_ios: u64,
}

/// What fio's JSON says was done in a second, in the operation's unit.
pub(super) fn speed(json: &str, operation: Operation) -> Result<f64, String> {
    let report: Report = serde_json::from_str(json).map_err(|error| format!("fio's report: {error}"))?;
    let [job] = &report.jobs[..] else { return Err(format!("fio reports {} jobs", report.jobs.len())) };
    let done = if operation.writes() { &job.write } else { &job.read };
    if job.error != 0 || done.total_ios == 0 {
        return Err(format!("fio failed at {operation}: error {}, {} requests", job.error, done.total_ios));
    }
    Ok(if operation.is_random() { done.iops } else { done.bw_bytes / f64::from(1 << 20) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As fio 3.33 prints it, shortened.
    const REPORT: &str = r#"{
        "fio version": "fio-3.33",
        "jobs": [{
            "jobname": "study", "error": 0, "elapsed": 1,
            "read": { "io_bytes": 4194304, "bw_bytes": 31457280, "iops": 7699.248120, "runtime": 133, "total_ios": 1024 },
            "write": { "io_bytes": 0, "bw_bytes": 0, "iops": 0.000000, "runtime": 0, "total_ios": 0 }
        }]
    }"#;

    #[test]
    fn a_report_is_read_in_the_unit_of_the_operation() {
        assert_eq!(speed(REPORT, Operation::SequentialRead), Ok(30.0));
        assert_eq!(speed(REPORT, Operation::RandomRead), Ok(7_699.248_12));
    }

    #[test]
    fn nothing_done_is_no_figure() {
        assert!(speed(REPORT, Operation::RandomRewrite).is_err_and(|why| why.contains("0 requests")));
        assert!(speed(&REPORT.replace("\"error\": 0", "\"error\": 5"), Operation::RandomRead).is_err());
        assert!(speed("fio: connected to NBD server", Operation::RandomRead).is_err());
    }

    #[test]
    fn a_rewrite_does_what_the_first_write_did() {
        let load = Load { seconds: 2, disk_len: 64 << 20, seed: 7 };
        let arguments = |operation| load.arguments(operation);
        assert_eq!(arguments(Operation::RandomFirstWrite), arguments(Operation::RandomRewrite));
        assert_eq!(arguments(Operation::SequentialFirstWrite), arguments(Operation::SequentialRewrite));
        assert!(arguments(Operation::RandomRewrite).contains(&format!("--io_size={}", 4 << 20)));
    }
}
