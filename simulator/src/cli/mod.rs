//! The commands, one in each file.

use std::path::Path;

pub(crate) mod accuracy;
pub(crate) mod compare;
pub(crate) mod run;
pub(crate) mod study;

/// What ends a command; told as it is.
pub(crate) type Failure = Box<dyn std::error::Error>;

/// Says which file an error is about.
fn about(path: &Path) -> impl FnOnce(Failure) -> Failure {
    move |error| format!("{}: {error}", path.display()).into()
}
