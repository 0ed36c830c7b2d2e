//! What machines are made of: a kernel with its modules, programs for guests, QEMU. `tests/vm/fetch` brings what the host
//! lacks into `target/vm/root`; the rest is taken from the host. Nothing is skipped if a part is missing: that fails.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use drover_harness::run;

/// Folders that programs lie in.
const PROGRAMS: [&str; 6] = ["usr/local/bin", "usr/sbin", "usr/bin", "sbin", "bin", "usr/local/sbin"];
/// Folders that libraries lie in.
const LIBRARIES: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];

/// Where the parts are.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    root: PathBuf,
}

/// A kernel module.
#[derive(Debug, Clone)]
pub(crate) struct Module {
    /// Its name with underscores.
    pub(crate) name: String,
    /// The `.ko` file.
    pub(crate) content: Vec<u8>,
}

impl Parts {
    /// The parts that were brought beside this build.
    #[track_caller]
    pub(crate) fn find() -> Parts {
        Parts::look().expect("the parts of virtual machines are missing: run `tests/vm/fetch target/vm`")
    }

    /// The same, if they were brought.
    pub(crate) fn look() -> Option<Parts> {
        let program = std::env::current_exe().expect("a running program has a path");
        // Programs lie in target/PROFILE, tests in target/PROFILE/deps.
        let mut folders = program.ancestors().skip(2).take(2).map(|target| target.join("vm"));
        let brought = folders.find(|folder| folder.join("complete").exists())?;
        Some(Parts { root: brought.join("root") })
    }

    /// A program, brought or installed.
    #[track_caller]
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        let places = [self.root.as_path(), Path::new("/")].into_iter();
        let mut paths = places.flat_map(|place| PROGRAMS.map(|folder| place.join(folder).join(name)));
        paths.find(|path| path.exists()).unwrap_or_else(|| panic!("{name} was neither brought nor is it installed"))
    }

    /// QEMU with what it needs to find its own files.
    #[track_caller]
    pub(crate) fn qemu(&self) -> Command {
        let program = self.program("qemu-system-x86_64");
        let mut qemu = Command::new(&program);
        if program.starts_with(&self.root) {
            qemu.env("LD_LIBRARY_PATH", self.library_path());
            for data in ["qemu", "seabios"] {
                qemu.arg("-L").arg(self.root.join("usr/share").join(data));
            }
        }
        qemu
    }

    /// The kernel.
    #[track_caller]
    pub(crate) fn kernel(&self) -> PathBuf {
        let is_kernel =
            |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"vmlinuz"));
        files_in(&self.root.join("boot")).into_iter().find(is_kernel).expect("the kernel's package has a kernel")
    }

    /// These modules and all that they need, each after what it needs. What the kernel has built in is left out.
    #[track_caller]
    pub(crate) fn modules(&self, roots: &[&str]) -> Vec<Module> {
        let mut files = BTreeMap::new();
        index(&self.root.join("lib/modules"), &mut files);
        let mut ordered = Vec::new();
        for root in roots {
            add_module(root, &files, &mut ordered);
        }
        ordered
    }

    /// The libraries that a program is linked with, the loader among them.
    #[track_caller]
    pub(crate) fn libraries(&self, program: &Path) -> Vec<PathBuf> {
        let listed = run(Command::new("ldd").arg(program).env("LD_LIBRARY_PATH", self.library_path()));
        if listed.code != Some(0) {
            let said = format!("{}{}", listed.stdout, listed.stderr);
            assert!(said.contains("not a dynamic"), "{listed:#?}");
            return Vec::new();
        }
        assert!(!listed.stdout.contains("not found"), "{listed:#?}");
        listed.stdout.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
    }

    fn library_path(&self) -> String {
        LIBRARIES.map(|folder| self.root.join(folder).display().to_string()).join(":")
    }
}

fn add_module(name: &str, files: &BTreeMap<String, PathBuf>, ordered: &mut Vec<Module>) {
    let name = name.replace('-', "_");
    let Some(path) = files.get(&name) else { return };
    if ordered.iter().any(|module| module.name == name) {
        return;
    }
    let content = unpacked(path);
    for needed in dependencies(&content) {
        add_module(&needed, files, ordered);
    }
    ordered.push(Module { name, content });
}

/// What a module says that it needs: a field of its `.modinfo`, which is text with a zero byte behind each field.
fn dependencies(module: &[u8]) -> Vec<String> {
    const FIELD: &[u8] = b"depends=";
    let at = module.windows(FIELD.len()).position(|window| window == FIELD).expect("a module says what it needs");
    let value = module[at + FIELD.len()..].split(|&byte| byte == 0).next().unwrap_or_default();
    let text = String::from_utf8_lossy(value);
    text.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// The modules below a folder, by their names with underscores.
fn index(folder: &Path, files: &mut BTreeMap<String, PathBuf>) {
    for path in files_in(folder) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if path.is_dir() {
            index(&path, files);
        } else if let Some((module, _)) = name.split_once(".ko") {
            files.insert(module.replace('-', "_"), path);
        }
    }
}

/// A module's file as the kernel wants it; later kernels' packages have them packed.
fn unpacked(path: &Path) -> Vec<u8> {
    let unpacker = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return std::fs::read(path).expect("what was brought can be read"),
    };
    let output = Command::new(unpacker).arg("-dc").arg(path).output().unwrap_or_else(|e| panic!("{unpacker}: {e}"));
    assert!(output.status.success(), "{unpacker} can't unpack {}", path.display());
    output.stdout
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a folder can be listed").path()).collect();
    paths.sort();
    paths
}
