//! The target that `DROVER_FUZZ` names.
#![no_main]

use std::sync::LazyLock;

use drover_fuzz::{TARGETS, Target, target};
use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("DROVER_FUZZ").unwrap_or_default();
    target(&name).unwrap_or_else(|| panic!("DROVER_FUZZ={name:?} is none of {:?}", TARGETS.map(|target| target.name)))
});

fuzz_target!(|bytes: &[u8]| (TARGET.run)(bytes));
