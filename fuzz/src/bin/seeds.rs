//! Writes each target's seeds to `FOLDER/NAME`, for libFuzzer to begin with, and prints the names of the targets:
//! `cargo run -p drover-fuzz --bin seeds -- FOLDER`.

use std::io::{Error, Write};
use std::path::PathBuf;

fn main() -> std::io::Result<()> {
    let folder = std::env::args_os().nth(1).ok_or(Error::other("name the folder for the seeds"))?;
    for target in drover_fuzz::TARGETS {
        let folder = PathBuf::from(&folder).join(target.name);
        std::fs::create_dir_all(&folder)?;
        for (number, seed) in (target.seeds)().into_iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{number:02}")), seed)?;
        }
        writeln!(std::io::stdout(), "{}", target.name)?;
    }
    Ok(())
}
