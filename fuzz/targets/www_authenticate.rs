//! `WWW-Authenticate`: for all input, the parser ends and stays within its bounds, and its result round-trips.
#![no_main]

use kuik_core::client::Challenge;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // Several headers, as a response may have them.
    let all = Challenge::parse_all(data.split(|&byte| byte == b'\n'));
    assert!(all.len() <= 16);
    for challenge in &all {
        assert!(!challenge.scheme().is_empty());
        assert!(challenge.is(&challenge.scheme().to_ascii_uppercase()));
        let Some(realm) = challenge.parameter("realm") else { continue };
        // Only values that fit into a header.
        if realm.len() > 2000 || challenge.scheme().len() > 2000 {
            continue;
        }
        let escaped = realm.replace('\\', "\\\\").replace('"', "\\\"");
        let plain = format!("{} REALM=\"{escaped}\"", challenge.scheme());
        let again = Challenge::parse_all([plain.as_bytes()]);
        assert_eq!(again.len(), 1, "{plain}");
        assert_eq!(again[0].scheme(), challenge.scheme());
        assert_eq!(again[0].parameter("Realm"), Some(realm));
    }
});
