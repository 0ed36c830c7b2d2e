//! The `drover` command: everything is in [`drover_agent::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    drover_agent::cli::main()
}
