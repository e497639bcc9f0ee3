//! References: parsing never panics; every parsed reference round-trips through all its printed forms, and encoded
//! references decode to themselves.
#![no_main]

use kuik_core::reference::{
    ImageReference, PortForms, ProxyAuthority, RepositoryName, decode, decode_path, encode,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = decode_path(text, PortForms::OrDash);
    let _ = text.parse::<RepositoryName>();
    match ImageReference::parse(text) {
        Ok(image) => holds(&image),
        Err(error) => assert!(text.is_char_boundary(error.at()) && !error.to_string().is_empty()),
    }
});

fn holds(image: &ImageReference<'_>) {
    for printed in [image.normalized(), image.familiar()] {
        assert_eq!(&parse(&printed), image, "{printed}");
    }
    assert!(image.familiar().len() <= image.normalized().len());
    assert_eq!(image.digest().is_some(), image.to_digest().is_some());

    let name = image.repository();
    assert_eq!(name.to_string().parse().as_ref(), Ok(&name));
    if let Ok(path) = name.encoded() {
        assert_eq!(decode_path(&path, PortForms::DoubleUnderscore).as_ref(), Ok(&name));
    }

    let proxy = ProxyAuthority::localhost(7439);
    if let Ok(encoded) = encode(image, &proxy) {
        let through_proxy = parse(&encoded);
        let original = decode(&encoded, &proxy).expect("what is encoded has our prefix");
        let written_original = decode(image.as_written(), &proxy).unwrap_or(image.as_written().into());
        assert_eq!(parse(&original), parse(&written_original));
        assert_eq!(
            decode_path(&through_proxy.path(), PortForms::DoubleUnderscore),
            Ok(parse(&original).repository())
        );
        assert_eq!(encode(&through_proxy, &proxy).as_ref(), Ok(&encoded));
    }
}

fn parse(text: &str) -> ImageReference<'_> {
    ImageReference::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}
