//! The study's page, made with small fleets.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use drover_sim::Scenario;
use drover_sim::study::Point;

const PLOTS: [&str; 7] =
    ["fleet-size", "slow-hosts", "source-dies-30", "source-dies-70", "rack-uplink", "vm-load", "vm-start"];

#[test]
fn the_page_has_every_plot_with_its_scenario_and_needs_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let made = Command::new(env!("CARGO_BIN_EXE_drover-sim"))
        .args(["study", "--quick", "--out"])
        .arg(folder.path())
        .output()
        .expect("it runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect("a file");
    let page = read("study.html");
    for outside in ["src=", "href=", "url(", "@import", "<script", "<link", "https:"] {
        assert!(!page.contains(outside), "{outside} leaves the page");
    }
    for name in PLOTS {
        assert!(page.contains(&format!("<section id=\"{name}\">")), "{name}");
        assert!(page.contains(&read(&format!("{name}.svg"))), "{name} is drawn on the page");
    }
    let scenarios: Vec<&str> = page.split("<pre>").skip(1).filter_map(|rest| rest.split("</pre>").next()).collect();
    assert_eq!(scenarios.len(), PLOTS.len());
    for text in scenarios {
        assert!(text.contains("# seeds"), "{text}");
        Scenario::parse(text, None).unwrap_or_else(|error| panic!("{error}:\n{text}"));
    }
    check_points(&folder.path().join("points.csv"));
}

fn check_points(path: &Path) {
    let mut reader = csv::Reader::from_path(path).expect("a table");
    let points: Vec<Point> = reader.deserialize().map(|point| point.expect("a point")).collect();
    let plots: BTreeSet<&str> = points.iter().map(|point| point.plot.as_str()).collect();
    assert_eq!(plots, BTreeSet::from(PLOTS));
    let of = |line: &str, x: f64| {
        let mut same = points.iter().filter(|point| point.plot == "fleet-size" && point.line == line && point.x == x);
        same.next().and_then(|point| point.y)
    };
    // One server needs ten times as long for ten times as many; a swarm does not, and has no point beyond its limit.
    let seconds = |line: &str, x: f64| of(line, x).unwrap_or_else(|| panic!("{line} has no point at {x}"));
    assert!((seconds("nfs", 100.0) / seconds("nfs", 10.0) - 10.0).abs() < 0.2);
    assert!(seconds("p2p", 10.0) < 0.5 * seconds("nfs", 10.0));
    assert_eq!(of("p2p", 100.0), None);
}
