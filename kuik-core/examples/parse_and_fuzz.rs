//! Parses image references, and fuzzes the parser from outside of the crate.
//!
//! A reference names an image: `nginx`, `registry:5000/app:1.2`. Container runtimes read `nginx` as
//! `docker.io/library/nginx:latest`; that is the normalized form, by which references compare. Names come from the
//! manifests of users, so the parser must not panic on any text, and what it accepts must have one meaning. [`check`]
//! states this as properties. `cargo-fuzz` calls such a function with bytes that it varies by code coverage; here a
//! small generator varies known references, so that the example needs no other tool.
//!
//! `cargo run -p kuik-core --example parse_and_fuzz registry:5000/app:1.2`

use kuik_core::reference::{
    ImageReference, OwnedImageReference, ProxyAuthority, ReferenceError, decode, encode,
};

/// Returns one line about a reference: its parts, and how a pod names it to pull it through the proxy of its node.
fn describe(text: &str) -> Result<String, ReferenceError> {
    // Borrows from the text, and allocates nothing.
    let image = ImageReference::parse(text)?;
    // An IPv6 address, for example, cannot be part of a path: such an image is pulled directly.
    let proxied = match encode(&image, &ProxyAuthority::localhost(7439)) {
        Ok(encoded) => encoded,
        Err(error) => format!("not possible, {error}"),
    };
    Ok(format!("{image}: registry {}, path {}, through the proxy {proxied}", image.registry(), image.path()))
}

/// The properties that hold for every text. This is the body of a `fuzz_target!` of cargo-fuzz.
fn check(text: &str) {
    let image = match ImageReference::parse(text) {
        Ok(image) => image,
        // An error says where the text is wrong; the offset is valid in the text, for a marker below it.
        Err(error) => return assert!(text.is_char_boundary(error.at())),
    };
    // The normalized form is a reference with the same meaning.
    let normalized = image.normalized();
    assert_eq!(ImageReference::parse(&normalized), Ok(image), "{text}");
    // The owned form keeps everything, for collections and for values that outlive the text.
    assert_eq!(OwnedImageReference::from(&image).normalized(), normalized);
    // Decoding an encoded reference gives the same image.
    let proxy = ProxyAuthority::localhost(7439);
    if let Ok(encoded) = encode(&image, &proxy) {
        let decoded = decode(&encoded, &proxy).unwrap_or_default();
        let original = decode(text, &proxy).unwrap_or(text.into());
        assert_eq!(ImageReference::parse(&decoded), ImageReference::parse(&original), "{text}");
    }
}

/// Checks `count` variations of known references. The same seed gives the same texts.
#[expect(clippy::indexing_slicing, reason = "`below` returns a number below the length")]
fn fuzz(seed: u64, count: usize) {
    const KNOWN: [&str; 5] =
        ["nginx", "registry:5000/app:1.2", "localhost:7439/a__1/b", "[::1]:5000/a", "a/b@sha256:"];
    const PIECES: [&str; 10] = ["/", ":", "@", "__", "-", ".", "A", "0", "é", "[::1]"];
    let mut state = seed;
    let mut below = |limit: usize| {
        // A linear congruential generator (Knuth's MMIX): enough to choose places and pieces.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap_or_default() % limit
    };
    for _ in 0..count {
        let mut characters: Vec<char> = KNOWN[below(KNOWN.len())].chars().collect();
        for _ in 0..=below(4) {
            let place = below(characters.len() + 1);
            let end = (place + below(2)).min(characters.len());
            characters.splice(place..end, PIECES[below(PIECES.len())].chars());
        }
        check(&characters.into_iter().collect::<String>());
    }
}

#[expect(clippy::print_stdout, reason = "the result of the example")]
fn main() -> Result<(), ReferenceError> {
    for text in std::env::args().skip(1) {
        println!("{}", describe(&text)?);
    }
    fuzz(1, 100_000);
    println!("100000 variations hold");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{describe, fuzz};

    #[test]
    fn reference_is_described_with_its_parts() {
        let described = describe("registry:5000/app:1.2").unwrap();
        assert!(described.contains("registry registry:5000, path app"), "{described}");
        assert!(described.ends_with("localhost:7439/registry__5000/app:1.2"), "{described}");
        assert!(describe("[::1]:5000/app").unwrap().contains("not possible"));
        assert!(describe("app:not a tag").is_err());
    }

    #[test]
    fn properties_hold_for_variations() {
        fuzz(2, 20_000);
    }
}
