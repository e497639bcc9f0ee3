//! Manifests: decoding ends for all input; accepted manifests keep their bytes, have their digest, and decode to the
//! same value again.
#![no_main]

use bytes::Bytes;
use kuik_core::content::{Digest, Manifest, MediaType};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // The first byte selects the media type.
    let Some((&kind, body)) = data.split_first() else { return };
    let sent = match kind % 6 {
        0 => None,
        5 => Some(MediaType::from_header("text/html; charset=utf-8")),
        known => MediaType::MANIFESTS.get(usize::from(known) - 1).cloned(),
    };
    let bytes = Bytes::copy_from_slice(body);
    let Ok(manifest) = Manifest::new(sent.as_ref(), bytes.clone()) else { return };
    assert_eq!(manifest.bytes(), &bytes);
    assert_eq!(manifest.digest(), &Digest::sha256(body));
    assert!(MediaType::MANIFESTS.contains(manifest.media_type()) || !manifest.media_type().is_index());
    let decoded = manifest.decode().expect("what was accepted can be decoded");
    let again = Manifest::new(Some(manifest.media_type()), bytes).expect("its own type is accepted");
    assert_eq!(again.decode().expect("decoded before"), decoded);
    assert!(manifest.clone().verified_as(&Digest::sha256(body)).is_ok());
});
