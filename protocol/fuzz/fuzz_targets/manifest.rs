//! Any bytes as a manifest: an error, or a manifest whose one form they are.
#![no_main]

use drover_protocol::manifest::Manifest;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(manifest) = Manifest::from_bytes(bytes) {
        assert_eq!(manifest.to_bytes(), bytes);
        let data = manifest.data_chunks();
        assert!(manifest.pieces_held(&data).is_full());
        assert!(manifest.geometry().chunks().all(|chunk| data.contains(chunk) != manifest.is_zero(chunk)));
    }
});
