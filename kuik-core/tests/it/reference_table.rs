//! Table tests of the reference grammar: `reference/valid.txt` and `reference/invalid.txt`.

use kuik_core::reference::{
    CannotEncode, ImageReference, PortForms, ProxyAuthority, ReferenceErrorKind, decode, decode_path, encode,
};

/// Returns the columns of each row of a table, with `{x*N}` expanded.
fn rows<const COLUMNS: usize>(table: &str) -> Vec<[String; COLUMNS]> {
    let rows = table.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    rows.map(|row| {
        let columns: Vec<_> = row.split('|').map(|column| expanded(column.trim())).collect();
        columns.try_into().unwrap_or_else(|_| panic!("{row}: not {COLUMNS} columns"))
    })
    .collect()
}

fn expanded(column: &str) -> String {
    let Some((before, repeat)) = column.split_once('{') else { return column.to_owned() };
    let (repeat, after) = repeat.split_once('}').unwrap();
    let (text, times) = repeat.rsplit_once('*').unwrap();
    [before, &text.repeat(times.parse().unwrap()), &expanded(after)].concat()
}

fn some(column: &str) -> Option<&str> {
    Some(column).filter(|column| !column.is_empty())
}

#[test]
fn valid_references_parse_print_and_encode_as_tabulated() {
    let proxy = ProxyAuthority::localhost(7439);
    let rows = rows(include_str!("reference/valid.txt"));
    for [written, registry, path, tag, digest, familiar, proxied] in &rows {
        let image = ImageReference::parse(written).unwrap_or_else(|error| panic!("{written}: {error}"));
        assert_eq!(image.as_written(), written);
        assert_eq!((image.registry(), &*image.path()), (&**registry, &**path), "{written}");
        assert_eq!((image.tag(), image.digest()), (some(tag), some(digest)), "{written}");
        assert_eq!(image.to_digest().map(|digest| digest.to_string()).as_deref(), some(digest), "{written}");

        let normalized = match (some(tag), some(digest)) {
            (None, None) => format!("{registry}/{path}:latest"),
            (Some(tag), None) => format!("{registry}/{path}:{tag}"),
            (None, Some(digest)) => format!("{registry}/{path}@{digest}"),
            (Some(tag), Some(digest)) => format!("{registry}/{path}:{tag}@{digest}"),
        };
        assert_eq!(image.normalized(), normalized);
        assert_eq!(image.to_string(), normalized);
        assert_eq!(ImageReference::parse(&normalized), Ok(image), "{written}");

        let familiar = if familiar == "=" { written } else { familiar };
        assert_eq!(&image.familiar(), familiar, "{written}");
        assert_eq!(ImageReference::parse(familiar), Ok(image), "{written}");

        match encode(&image, &proxy) {
            Ok(encoded) => {
                let behind = if proxied == "=" { written } else { proxied };
                assert_eq!(encoded, format!("localhost:7439/{behind}"), "{written}");
                let original = decode(&encoded, &proxy).unwrap();
                let meant = decode(written, &proxy).unwrap_or(written.into());
                let original = ImageReference::parse(&original).unwrap();
                assert_eq!(Ok(original), ImageReference::parse(&meant), "{written}");
                let through_proxy = ImageReference::parse(&encoded).unwrap();
                assert_eq!(
                    decode_path(&through_proxy.path(), PortForms::DoubleUnderscore),
                    Ok(original.repository())
                );
                assert_eq!(encode(&through_proxy, &proxy), Ok(encoded.clone()), "{written}");
            }
            Err(CannotEncode::NotAReference(_)) => assert_eq!("NotAReference", proxied, "{written}"),
            Err(reason) => assert_eq!(&format!("{reason:?}"), proxied, "{written}"),
        }
    }
    assert!(rows.len() >= 120, "{} rows", rows.len());
}

#[test]
fn invalid_references_are_rejected_with_kind_and_offset() {
    let rows = rows(include_str!("reference/invalid.txt"));
    let mut wrong = Vec::new();
    for [written, kind, at] in &rows {
        let Err(error) = ImageReference::parse(written) else { panic!("{written}: is valid") };
        let found = match error.kind() {
            ReferenceErrorKind::DigestLength { expected } => format!("DigestLength({expected})"),
            kind => format!("{kind:?}"),
        };
        if found != *kind || error.at().to_string() != *at {
            wrong.push(format!("{written}: {found} {}", error.at()));
        }
        assert!(error.to_string().contains(&format!("byte {}", error.at())), "{written}: {error}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(rows.len() >= 120, "{} rows", rows.len());
}

#[test]
fn each_ascii_byte_is_accepted_only_if_grammar_allows_it() {
    for byte in (0..=127).map(char::from) {
        let allowed_within = byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let divides = "._-/:".contains(byte);
        assert_eq!(
            ImageReference::parse(&format!("a{byte}b")).is_ok(),
            allowed_within || divides,
            "{byte:?}"
        );
        assert_eq!(ImageReference::parse(&format!("{byte}")).is_ok(), allowed_within, "{byte:?}");
        let in_tag = byte.is_ascii_alphanumeric() || "._-".contains(byte);
        assert_eq!(ImageReference::parse(&format!("a:b{byte}")).is_ok(), in_tag, "{byte:?}");
    }
}
