//! Property tests of references: printing and proxy encoding round-trip, and parsing never panics.

use kuik_core::reference::{
    CannotEncode, ImageReference, PortForms, ProxyAuthority, RepositoryName, Tag, decode, decode_path, encode,
};
use proptest::{option, prelude::*};

/// Texts that follow the grammar.
fn reference() -> impl Strategy<Value = String> {
    let registry = r"([a-zA-Z0-9]{1,3}(-{1,2}[a-z0-9]{1,2})?(\.[a-z0-9_]{0,2}[a-z]){0,2}(__[0-9]{1,2})?|localhost|docker\.io|index\.docker\.io|\[[0-9a-f:]{1,6}\])(:[0-9]{1,5})?/";
    let path = r"[a-z0-9]{1,4}((\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}(/[a-z0-9]{1,4}((\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}){0,2}";
    let tag = r":[A-Za-z0-9_][A-Za-z0-9_.-]{0,8}";
    let digest =
        r"@(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}|[a-z][a-z0-9]{0,3}(\+[a-z]{1,3})?:[0-9a-fA-F]{32,40})";
    let own = r"(localhost:7439/){0,1}";
    (own, option::of(registry), path, option::of(tag), option::of(digest)).prop_map(
        |(own, registry, path, tag, digest)| {
            [own, registry.unwrap_or_default(), path, tag.unwrap_or_default(), digest.unwrap_or_default()]
                .concat()
        },
    )
}

fn parse(text: &str) -> ImageReference<'_> {
    ImageReference::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn printed_reference_parses_to_equal_reference(text in reference()) {
        let Ok(image) = ImageReference::parse(&text) else { return Ok(()) };
        let (normalized, familiar) = (image.normalized(), image.familiar());
        prop_assert_eq!(parse(&normalized), image);
        prop_assert_eq!(parse(&familiar), image);
        prop_assert_eq!(parse(&normalized).normalized(), parse(&familiar).normalized());
        prop_assert!(familiar.len() <= normalized.len());
        let name = image.repository();
        prop_assert_eq!((name.registry(), name.path()), (image.registry(), &*image.path()));
        prop_assert_eq!(name.to_string().parse(), Ok(name));
    }

    #[test]
    fn encoded_reference_decodes_to_original(text in reference(), port in 1..=u16::MAX) {
        let Ok(image) = ImageReference::parse(&text) else { return Ok(()) };
        for proxy in [ProxyAuthority::localhost(7439), ProxyAuthority::localhost(port)] {
            let Ok(encoded) = encode(&image, &proxy) else { continue };
            let decoded = decode(&encoded, &proxy).unwrap();
            let original = decode(&text, &proxy).unwrap_or((&*text).into());
            prop_assert_eq!(parse(&decoded), parse(&original));
            let encoded_path = parse(&encoded).path().into_owned();
            let decoded_path = decode_path(&encoded_path, PortForms::DoubleUnderscore);
            prop_assert_eq!(decoded_path, Ok(parse(&original).repository()));
            prop_assert_eq!(encode(&parse(&encoded), &proxy), Ok(encoded.clone()));
        }
    }

    #[test]
    fn encoded_repository_name_decodes_to_original(text in reference()) {
        let Ok(image) = ImageReference::parse(&text) else { return Ok(()) };
        let name = image.repository();
        let Ok(path) = name.encoded() else { return Ok(()) };
        prop_assert_eq!(decode_path(&path, PortForms::DoubleUnderscore), Ok(name));
        let in_cache = ["localhost:1/", &path].concat();
        prop_assert_eq!(parse(&in_cache).path(), path);
    }

    #[test]
    fn parsing_arbitrary_text_never_panics(text in any::<String>(), signs in "[a-zA-Z0-9:/@._\\[\\]-]{0,80}", edit in 0_usize..80) {
        let mut broken = text.clone();
        broken.extend(signs.chars().skip(edit));
        for text in [&text, &signs, &broken] {
            match ImageReference::parse(text) {
                Ok(image) => {
                    let printed = image.to_string();
                    prop_assert_eq!(parse(&printed), image);
                }
                Err(error) => {
                    prop_assert!(text.is_char_boundary(error.at()));
                    prop_assert!(error.to_string().contains(&error.at().to_string()));
                }
            }
            let _ = text.parse::<Tag>();
            let _ = text.parse::<RepositoryName>();
            let _ = decode_path(text, PortForms::OrDash);
            let _ = decode(text, &ProxyAuthority::localhost(1));
        }
    }
}

#[test]
fn decode_path_accepts_dash_ports_of_kuik_1_only_if_enabled() {
    let both = |path| {
        [PortForms::DoubleUnderscore, PortForms::OrDash]
            .map(|forms| decode_path(path, forms).unwrap().to_string())
    };
    assert_eq!(both("registry-5000/app"), ["docker.io/registry-5000/app", "registry:5000/app"]);
    assert_eq!(both("a.corp-5000/b/c"), ["a.corp-5000/b/c", "a.corp:5000/b/c"]);
    assert_eq!(both("registry__5000/app"), ["registry:5000/app"; 2]);
    assert_eq!(both("team-20240101/app"), ["docker.io/team-20240101/app"; 2]);
    assert_eq!(both("app-5000"), ["docker.io/library/app-5000"; 2]);
    assert_eq!(both("app"), ["docker.io/library/app"; 2]);
}

#[test]
fn decode_path_rejects_invalid_paths() {
    for path in ["", "/", "a//b", "../a", "registry:5000/app", "[::1]__1/app", "Quay.io/app", "a/b:1", "a@b"]
    {
        assert!(decode_path(path, PortForms::OrDash).is_err(), "{path}");
    }
    let identifier = "a".repeat(64);
    let name = decode_path(&identifier, PortForms::default()).unwrap();
    assert_eq!(name.path(), format!("library/{identifier}"));
}

#[test]
fn repository_names_and_tags_are_normalized_and_validated() {
    let name = |registry, path| RepositoryName::new(registry, path).map(|name| name.to_string());
    assert_eq!(name("index.docker.io", "nginx").unwrap(), "docker.io/library/nginx");
    assert_eq!(name("[::1]:5000", "a/b").unwrap(), "[::1]:5000/a/b");
    for (registry, path) in
        [("", "a"), ("registry", "a"), ("a:", "b"), ("a.b/c", "d"), ("a.b", ""), ("a.b", "c:1"), ("a.b", "C")]
    {
        assert!(name(registry, path).is_err(), "{registry} {path}");
    }
    for text in ["quay.io/app:1", "quay.io/app@sha256:", "app:app"] {
        assert!(text.parse::<RepositoryName>().is_err(), "{text}");
    }
    let too_long = RepositoryName::new("quay.io", &"a".repeat(250)).unwrap();
    assert_eq!(too_long.encoded(), Err(CannotEncode::TooLong(258)));

    for (text, valid) in [("v1.2", true), ("", false), ("a@sha256:0", false), (".a", false), ("a:b", false)] {
        assert_eq!(text.parse::<Tag>().is_ok(), valid, "{text}");
    }
}
