//! The page: every plot inline, so that one file is enough.

use std::fmt::Write as _;

use super::{Plot, Study};

pub(super) fn page(study: &Study) -> String {
    let mut page = String::from(HEAD);
    for plot in &study.plots {
        section(&mut page, plot);
    }
    page.push_str("</body>\n</html>\n");
    page
}

fn section(page: &mut String, plot: &Plot) {
    let Plot { name, title, text, scenario, svg, .. } = plot;
    let _ = write!(
        page,
        "<section id=\"{name}\">\n<h2>{}</h2>\n{svg}<p>{}</p>\n<pre>{}</pre>\n</section>\n",
        escaped(title),
        escaped(text),
        escaped(scenario)
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

const HEAD: &str = "<!DOCTYPE html>
<html lang=\"en\">
<head>
<meta charset=\"utf-8\">
<title>Drover: bringing an image to a fleet</title>
<style>
body { font-family: sans-serif; max-width: 920px; margin: 2em auto; line-height: 1.4; }
pre { background: #f4f4f4; padding: 0.8em; overflow-x: auto; }
svg { max-width: 100%; height: auto; }
</style>
</head>
<body>
<h1>Bringing an image to a fleet</h1>
<p>Simulated by flows that share links fairly. p2p is Drover's own machines on virtual time, hybrid the
same with its multicast; every other contender is an
exact schedule of its idea over the same links, with the headers of its transport. Real systems are slower than their
schedules. Under each plot is its scenario for <code>drover-sim compare</code>; all points are in points.csv.</p>
";
