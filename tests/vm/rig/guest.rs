//! Running commands inside a machine, from a test outside.
//!
//! They go through a port that the guest sees as `/dev/vport*` and the test as a socket. `tests/vm/guest/host.sh` is the
//! other end. So a test reads like any other: a command, its exit code, what it printed.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use drover_harness::{LONG, Outcome, wait_for};

use super::machine::{Machine, Setup};

/// A machine that runs commands.
#[derive(Debug)]
pub(crate) struct Guest {
    machine: Machine,
    commands: UnixStream,
    answers: BufReader<UnixStream>,
}

impl Guest {
    /// Starts a machine whose first program is `host.sh`, and waits until it answers.
    #[track_caller]
    pub(crate) fn start(mut setup: Setup<'_>) -> Guest {
        let socket = setup.folder.join(format!("{}.control", setup.name));
        let port = format!("socket,id=control,path={},server=on,wait=off", socket.display());
        let devices = ["-device", "virtio-serial-pci", "-chardev", &port, "-device", "virtserialport,chardev=control"];
        setup.devices.extend(devices.map(str::to_owned));
        let mut machine = Machine::start(setup);
        let commands = wait_for("the machine's control port", Duration::from_secs(20), || {
            machine.must_run();
            UnixStream::connect(&socket).ok()
        });
        commands.set_read_timeout(Some(LONG)).expect("a socket takes a time-out");
        let answers = BufReader::new(commands.try_clone().expect("a file handle can be copied"));
        let mut guest = Guest { machine, commands, answers };
        guest.sh("true").ok();
        guest
    }

    /// Runs a line in a shell inside.
    #[track_caller]
    pub(crate) fn sh(&mut self, line: &str) -> Outcome {
        assert!(!line.contains('\n'), "a command is one line: {line}");
        let answer = writeln!(self.commands, "{line}").and_then(|()| self.answer());
        let (code, stdout, stderr) =
            answer.unwrap_or_else(|e| panic!("{line}: the machine gave no answer: {e}\n{}", self.machine.printed()));
        Outcome { line: line.to_owned(), code: Some(code), stdout, stderr }
    }

    fn answer(&mut self) -> std::io::Result<(i32, String, String)> {
        let mut head = String::new();
        self.answers.read_line(&mut head)?;
        let numbers: Vec<usize> = head.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [code, out_len, err_len] = numbers[..] else { return Err(std::io::Error::other(format!("{head:?}"))) };
        let mut text = |len: usize| {
            let mut bytes = vec![0; len];
            self.answers.read_exact(&mut bytes).map(|()| String::from_utf8_lossy(&bytes).into_owned())
        };
        Ok((code as i32, text(out_len)?, text(err_len)?))
    }
}

/// A device for each disk, in order; the first is `/dev/vda`. What is written need not outlive the machine.
pub(crate) fn disks(paths: &[&Path]) -> Vec<String> {
    let disk = |(index, path): (usize, &&Path)| {
        let drive = format!("file={},format=raw,if=none,id=d{index},cache=unsafe", path.display());
        ["-drive".to_owned(), drive, "-device".to_owned(), format!("virtio-blk-pci,drive=d{index}")]
    };
    paths.iter().enumerate().flat_map(disk).collect()
}
