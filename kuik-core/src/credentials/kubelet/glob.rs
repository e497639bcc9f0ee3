//! The kubelet's `matchImages` patterns: host with wildcards, port, and path prefix.
//!
//! Matches like `URLsMatch` in the kubelet's credential provider: host names have the same number of labels, each of
//! which matches like Go's `filepath.Match`; ports are equal; the path has the prefix of the pattern.

use crate::{credentials::docker_config::normalize, reference::RepositoryName};

/// An image pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ImageGlob {
    labels: Vec<Vec<Piece>>,
    port: Option<String>,
    path: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    /// `*`
    Many,
    /// `?`
    One,
    /// A literal character.
    Is(char),
    /// `[a-z]`, `[^a-z]`
    In { negated: bool, ranges: Vec<(char, char)> },
}

impl ImageGlob {
    /// Parses a pattern; `None` if it is invalid.
    pub(super) fn new(text: &str) -> Option<Self> {
        let (host, path) = normalize(text)?;
        let (host, port) = split_port(&host);
        let labels = host.split('.').map(pieces).collect::<Option<Vec<_>>>()?;
        Some(Self { labels, port: port.map(str::to_owned), path })
    }

    pub(super) fn matches(&self, repository: &RepositoryName) -> bool {
        let (host, port) = split_port(repository.registry());
        let labels: Vec<_> = host.split('.').collect();
        self.port.as_deref() == port
            && self.labels.len() == labels.len()
            && self.labels.iter().zip(labels).all(|(pattern, label)| label_matches(pattern, label))
            && repository.path().starts_with(&self.path)
    }
}

/// Splits host and port; the colons of an IPv6 address are in brackets.
fn split_port(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    }
}

fn pieces(label: &str) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut characters = label.chars();
    while let Some(character) = characters.next() {
        pieces.push(match character {
            '*' => Piece::Many,
            '?' => Piece::One,
            '\\' => Piece::Is(characters.next()?),
            '[' => class(&mut characters)?,
            other => Piece::Is(other),
        });
    }
    Some(pieces)
}

/// Parses a character class after its `[`, up to its `]`.
fn class(characters: &mut std::str::Chars<'_>) -> Option<Piece> {
    let negated = characters.as_str().starts_with('^');
    if negated {
        characters.next();
    }
    let mut ranges = Vec::new();
    loop {
        let low = match characters.next()? {
            ']' if !ranges.is_empty() => return Some(Piece::In { negated, ranges }),
            '\\' => characters.next()?,
            ']' | '-' => return None,
            other => other,
        };
        let mut high = low;
        if characters.as_str().starts_with('-') {
            characters.next();
            high = match characters.next()? {
                '\\' => characters.next()?,
                ']' | '-' => return None,
                other => other,
            };
        }
        ranges.push((low, high));
    }
}

/// Matches with one pass; on a mismatch, backtracks to the last `*` and extends it by one character.
fn label_matches(pattern: &[Piece], label: &str) -> bool {
    let text: Vec<char> = label.chars().collect();
    let (mut at, mut next) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(&character) = text.get(at) {
        match pattern.get(next) {
            Some(Piece::Many) => {
                star = Some((next, at));
                next += 1;
            }
            Some(piece) if piece.takes(character) => (at, next) = (at + 1, next + 1),
            _ => match &mut star {
                Some((many, taken)) => {
                    *taken += 1;
                    (at, next) = (*taken, *many + 1);
                }
                None => return false,
            },
        }
    }
    pattern.get(next..).is_some_and(|rest| rest.iter().all(|piece| *piece == Piece::Many))
}

impl Piece {
    fn takes(&self, character: char) -> bool {
        match self {
            Self::Many => false,
            Self::One => true,
            Self::Is(expected) => *expected == character,
            Self::In { negated, ranges } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&character)) != *negated
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, registry: &str, path: &str) -> bool {
        ImageGlob::new(pattern).unwrap().matches(&RepositoryName::new(registry, path).unwrap())
    }

    #[test]
    fn matches_like_the_kubelet() {
        // The cases of the kubelet's own documentation and tests.
        for (pattern, registry, path, expected) in [
            ("*.kubernetes.io", "prefix.kubernetes.io", "app", true),
            ("*.kubernetes.io", "kubernetes.io", "app", false),
            ("*.kubernetes.io", "a.b.kubernetes.io", "app", false),
            ("prefix.*.io", "prefix.kubernetes.io", "app", true),
            ("*-good.kubernetes.io", "prefix-good.kubernetes.io", "app", true),
            ("prefix*.kubernetes.io", "prefix-good.kubernetes.io", "app", true),
            ("*.kubernetes.io/foo", "a.kubernetes.io", "foo/bar", true),
            ("*.kubernetes.io/foo", "a.kubernetes.io", "bar", false),
            ("*.kubernetes.io:1111", "a.kubernetes.io:1111", "app", true),
            ("*.kubernetes.io:1111", "a.kubernetes.io", "app", false),
            ("*.kubernetes.io", "a.kubernetes.io:1111", "app", false),
            ("*.dkr.ecr.*.amazonaws.com", "012345678901.dkr.ecr.us-east-1.amazonaws.com", "app", true),
            ("*.dkr.ecr.*.amazonaws.com", "012345678901.dkr.ecr.us-east-1.amazonaws.com.cn", "app", false),
            ("gcr.io", "gcr.io", "project/app", true),
            ("gcr.io", "eu.gcr.io", "project/app", false),
            ("docker.io", "docker.io", "library/nginx", true),
            ("index.docker.io", "docker.io", "library/nginx", true),
            ("https://index.docker.io/v1/", "docker.io", "library/nginx", true),
            ("reg[0-9].example", "reg7.example", "app", true),
            ("reg[^0-9].example", "reg7.example", "app", false),
            ("r?g.example", "reg.example", "app", true),
            ("*a*b*.example", "xaxbx.example", "app", true),
            ("*a*b*.example", "xbxax.example", "app", false),
        ] {
            assert_eq!(matches(pattern, registry, path), expected, "{pattern} {registry}/{path}");
        }
        for malformed in ["", "reg[", "reg[].example", "reg[-a].example", "https:///path"] {
            assert_eq!(ImageGlob::new(malformed), None, "{malformed}");
        }
    }

    proptest! {
        #[test]
        fn label_matches_itself_and_star_matches_anything(label in "[a-z0-9-]{0,40}", stars in 1usize..20) {
            prop_assert!(label_matches(&pieces(&label).unwrap(), &label));
            prop_assert!(label_matches(&pieces(&"*".repeat(stars)).unwrap(), &label));
            let one_more = label_matches(&pieces(&format!("{label}?")).unwrap(), &label);
            prop_assert!(!one_more);
        }
    }
}
