//! What the tree itself must keep: floors, documents, licences.

use std::path::{Path, PathBuf};
use std::process::Command;

use drover_harness::run;
use serde_json::Value;

/// Licences that code linked into Drover may have.
const LICENCES: &[&str] = &[
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "CC0-1.0",
    "MIT-0",
    "Unlicense",
    "0BSD",
    "CDLA-Permissive-2.0",
    "BSL-1.0",
];

#[test]
fn every_dependency_has_a_licence_that_allows_its_use() {
    for package in packages() {
        let name = package["name"].as_str().expect("a package has a name");
        let licence = package["license"].as_str().unwrap_or_default().replace('/', " OR ");
        let mut alternatives = licence.split(" OR ").map(|part| part.trim_matches(|c| "() ".contains(c)).to_owned());
        let allowed =
            |part: String| part.split(" AND ").all(|one| LICENCES.contains(&one.trim_matches(|c| "() ".contains(c))));
        assert!(alternatives.any(allowed), "{name} has the licence {licence:?}");
    }
}

#[test]
fn the_quic_stack_is_not_older_than_its_last_hole() {
    let packages = packages();
    let versions: Vec<&str> = packages
        .iter()
        .filter(|package| package["name"] == "quinn-proto")
        .map(|package| package["version"].as_str().expect("a package has a version"))
        .collect();
    for version in &versions {
        let numbers: Vec<u32> = version.split('.').map(|part| part.parse().expect("a released version")).collect();
        assert!(numbers >= vec![0, 11, 17], "quinn-proto {version} has known holes; 0.11.17 closes them");
    }
    assert_eq!(versions.len(), 1, "one QUIC stack");
}

#[test]
fn the_floor_opens_nothing() {
    let forbidden = ["tokio", "quinn", "quinn-proto", "socket2", "mainline", "config", "rand", "hyper", "axum"];
    let manifest = std::fs::read_to_string(root().join("protocol/Cargo.toml")).expect("the crate has a manifest");
    for line in manifest.lines() {
        let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
        assert!(!forbidden.contains(&name), "protocol decides and opens nothing, but depends on {name}");
    }
}

#[test]
fn every_module_says_what_it_is() {
    for path in sources() {
        let text = std::fs::read_to_string(&path).expect("a source can be read");
        assert!(text.starts_with("//! "), "{} has no module documentation", path.display());
        let words = text.matches("todo!(").count() + text.matches("unimplemented!(").count();
        assert!(words == 0 || path.ends_with("tidy.rs"), "{} is not finished", path.display());
    }
}

#[test]
fn every_test_that_the_security_page_names_is_there() {
    let page = std::fs::read_to_string(root().join("SECURITY.md")).expect("the tree has the page");
    let code: String =
        sources().iter().map(|path| std::fs::read_to_string(path).expect("a source can be read")).collect();
    let quoted = page.split('`').skip(1).step_by(2);
    // A test's name is a sentence, and nothing else on the page looks like one.
    let names: Vec<&str> = quoted.filter(|name| name.matches('_').count() > 2 && !name.contains([' ', '/'])).collect();
    let is_missing = |name: &&&str| !code.contains(&format!("fn {name}("));
    assert_eq!(names.iter().filter(is_missing).collect::<Vec<_>>(), [&""; 0], "named in SECURITY.md and not there");
    assert!(names.len() > 50, "the page names {} tests", names.len());
}

fn packages() -> Vec<Value> {
    let mut metadata = Command::new(env!("CARGO"));
    metadata.args(["metadata", "--format-version", "1", "--locked", "--offline"]).current_dir(root());
    metadata.args(["--filter-platform", "x86_64-unknown-linux-gnu"]);
    let packages = run(&mut metadata).json()["packages"].take();
    packages.as_array().expect("a list of packages").clone()
}

fn sources() -> Vec<PathBuf> {
    let mut listed = Command::new("git");
    let listed = run(listed.args(["ls-files", "*.rs"]).current_dir(root())).ok();
    listed.lines().map(|line| root().join(line)).filter(|path| path.exists()).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace")
}
