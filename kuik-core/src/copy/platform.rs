//! Platform selection: which manifests of an index are copied.
//!
//! Invariant: an index is never changed. Selected manifests are copied with it; the others can be fetched on demand. An
//! empty selection is an error that lists the available platforms, never an image without content.

use std::{collections::BTreeSet, fmt, str::FromStr};

use super::NoPlatform;
use crate::content::{Descriptor, Digest, ImageIndex, Platform};

/// Annotation of an attestation in an index that names its subject.
const ABOUT: &str = "vnd.docker.reference.digest";
/// Maximum number of platforms listed in an error.
const MAX_LISTED: usize = 20;

/// Pattern of a wanted platform: `amd64` (Linux), `linux/arm64`, `linux/arm/v7`.
///
/// Without a variant, every variant matches. With one, older variants match too, as in container engines: an `arm/v7`
/// machine runs `arm/v6`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PlatformPattern {
    os: String,
    architecture: String,
    variant: Option<u32>,
}

/// An invalid platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid platform {0:?}: expected an architecture (amd64), os/architecture, os/architecture/variant, auto or all"
)]
pub struct InvalidPlatform(String);

/// The wanted platforms: every platform by default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platforms {
    all: bool,
    auto: bool,
    named: BTreeSet<PlatformPattern>,
}

impl Platforms {
    /// Returns the selection of every platform.
    #[must_use]
    pub fn all() -> Self {
        Self { all: true, auto: false, named: BTreeSet::new() }
    }

    /// Parses the values of `--arch`: see [`PlatformPattern`]. `auto` means those of the nodes, `all` or an empty list
    /// every platform, so an empty list is [`Platforms::default`].
    ///
    /// # Errors
    /// Returns an error that names the first invalid value.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, InvalidPlatform> {
        let mut platforms = Self { all: false, ..Self::all() };
        for text in texts {
            match text {
                "all" => platforms.all = true,
                "auto" => platforms.auto = true,
                other => {
                    platforms.named.insert(other.parse()?);
                }
            }
        }
        platforms.all |= !platforms.auto && platforms.named.is_empty();
        Ok(platforms)
    }

    /// Returns whether they depend on the nodes.
    #[must_use]
    pub fn is_auto(&self) -> bool {
        self.auto && !self.all
    }

    /// Returns the platforms with `auto` resolved to those of `nodes`. If `auto` is set and no node is known, every
    /// platform is wanted: too much is better than nothing.
    #[must_use]
    pub fn with_nodes(&self, nodes: impl IntoIterator<Item = PlatformPattern>) -> Self {
        if !self.is_auto() {
            return self.clone();
        }
        let mut named = self.named.clone();
        named.extend(nodes);
        Self { all: named.is_empty(), auto: false, named }
    }

    /// Selects the manifests of an index: those of the wanted platforms, those without a platform, and attestations of
    /// selected manifests.
    ///
    /// # Errors
    /// Returns an error if no manifest matches.
    pub fn choose<'a>(&self, index: &'a ImageIndex) -> Result<Vec<&'a Descriptor>, NoPlatform> {
        if self.all {
            return Ok(index.manifests.iter().collect());
        }
        let mut chosen: BTreeSet<&Digest> = BTreeSet::new();
        for pattern in &self.named {
            chosen.extend(pattern.best(&index.manifests));
        }
        chosen.extend(
            index.manifests.iter().filter(|listed| listed.platform.is_none()).map(|listed| &listed.digest),
        );
        if chosen.is_empty() {
            return Err(NoPlatform { wanted: self.to_string(), offered: offered(index) });
        }
        let about = |listed: &Descriptor| listed.annotations.get(ABOUT).and_then(|about| about.parse().ok());
        let attested =
            |listed: &&Descriptor| about(listed).is_some_and(|about: Digest| chosen.contains(&about));
        let kept = |listed: &&Descriptor| chosen.contains(&listed.digest) || attested(listed);
        Ok(index.manifests.iter().filter(kept).collect())
    }
}

/// Every platform, like an empty list.
impl Default for Platforms {
    fn default() -> Self {
        Self::all()
    }
}

impl PlatformPattern {
    /// Returns the platform of a node, given its labels `kubernetes.io/os` and `kubernetes.io/arch`.
    #[must_use]
    pub fn of_node(os: &str, architecture: &str) -> Self {
        Self { os: os.to_owned(), architecture: normal(architecture).to_owned(), variant: None }
    }

    /// Returns the matching manifests: all if the pattern has no variant, otherwise those of the best variant.
    fn best<'a>(&self, listed: &'a [Descriptor]) -> Vec<&'a Digest> {
        let fitting = || {
            listed.iter().filter_map(|listed| {
                let platform = listed.platform.as_ref()?;
                self.fits(platform).map(|variant| (variant, &listed.digest))
            })
        };
        let best = fitting().map(|(variant, _)| variant).max();
        fitting()
            .filter(|(variant, _)| self.variant.is_none() || Some(*variant) == best)
            .map(|(_, digest)| digest)
            .collect()
    }

    /// Returns the variant of a matching platform.
    fn fits(&self, platform: &Platform) -> Option<u32> {
        if platform.os != self.os || normal(&platform.architecture) != self.architecture {
            return None;
        }
        let variant = variant(&self.architecture, platform.variant.as_deref());
        self.variant.is_none_or(|most| variant <= most).then_some(variant)
    }
}

/// Normalizes the name of an architecture.
fn normal(architecture: &str) -> &str {
    match architecture {
        "x86_64" | "x86-64" => "amd64",
        "aarch64" => "arm64",
        "armhf" | "armel" => "arm",
        "i386" => "386",
        other => other,
    }
}

/// Returns the number of a variant, or the default of the architecture.
fn variant(architecture: &str, text: Option<&str>) -> u32 {
    let number = text.and_then(|text| text.trim_start_matches('v').split('.').next()?.parse().ok());
    number.unwrap_or(match architecture {
        "arm64" => 8,
        "arm" => 7,
        "amd64" => 1,
        _ => 0,
    })
}

impl FromStr for PlatformPattern {
    type Err = InvalidPlatform;

    fn from_str(text: &str) -> Result<Self, InvalidPlatform> {
        let parts: Vec<&str> = text.split('/').collect();
        let word = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.".contains(&byte))
        };
        if !parts.iter().all(|part| word(part)) {
            return Err(InvalidPlatform(text.to_owned()));
        }
        match parts.as_slice() {
            [architecture] => Ok(Self::of_node("linux", architecture)),
            [os, architecture] => Ok(Self::of_node(os, architecture)),
            [os, architecture, text] => {
                let architecture = normal(architecture);
                let variant = Some(variant(architecture, Some(text)));
                Ok(Self { os: (*os).to_owned(), architecture: architecture.to_owned(), variant })
            }
            _ => Err(InvalidPlatform(text.to_owned())),
        }
    }
}

impl fmt::Display for PlatformPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.map_or(Ok(()), |variant| write!(f, "/v{variant}"))
    }
}

impl fmt::Display for Platforms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.all {
            return f.write_str("all platforms");
        }
        let auto = self.auto.then(|| "the nodes' platforms".to_owned());
        let named: Vec<String> = self.named.iter().map(ToString::to_string).chain(auto).collect();
        f.write_str(&named.join(", "))
    }
}

/// Lists the platforms of an index, for an error message.
fn offered(index: &ImageIndex) -> String {
    let shown = |platform: &Platform| {
        let variant = platform.variant.as_ref().map_or(String::new(), |variant| format!("/{variant}"));
        format!("{}/{}{variant}", platform.os, platform.architecture)
    };
    let platforms: BTreeSet<String> =
        index.manifests.iter().filter_map(|listed| listed.platform.as_ref()).map(shown).collect();
    match platforms.len() {
        0 => "none".to_owned(),
        count if count > MAX_LISTED => {
            let some: Vec<String> = platforms.into_iter().take(MAX_LISTED).collect();
            format!("{} and {} more", some.join(", "), count - MAX_LISTED)
        }
        _ => platforms.into_iter().collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::MediaType;

    fn index(platforms: &[&str]) -> ImageIndex {
        let listed = platforms.iter().map(|text| {
            let digest = Digest::sha256(text.as_bytes());
            let mut listed = Descriptor::new(MediaType::OCI_MANIFEST, digest, 1);
            let mut parts = text.split('/').map(str::to_owned);
            if let (Some(os), Some(architecture)) = (parts.next(), parts.next()) {
                listed.platform = Some(Platform { os, architecture, variant: parts.next() });
            }
            listed
        });
        ImageIndex::new(listed.collect())
    }

    fn chosen(wanted: &[&str], platforms: &[&str]) -> Result<Vec<usize>, String> {
        let index = index(platforms);
        let chosen = Platforms::parse(wanted.iter().copied())
            .unwrap()
            .choose(&index)
            .map_err(|error| error.to_string())?;
        let place =
            |chosen: &&Descriptor| index.manifests.iter().position(|listed| listed == *chosen).unwrap();
        Ok(chosen.iter().map(place).collect())
    }

    #[test]
    fn choose_selects_wanted_platforms() {
        let usual = ["linux/amd64", "linux/arm64/v8", "linux/arm/v6", "linux/arm/v7", "windows/amd64"];
        for (wanted, platforms, expected) in [
            (&["amd64"][..], &usual[..], &[0][..]),
            (&["x86_64", "linux/aarch64"], &usual, &[0, 1]),
            (&["linux/arm64/v8"], &usual, &[1]),
            (&["linux/arm"], &usual, &[2, 3]),
            (&["linux/arm/v7"], &usual, &[3]),
            (&["linux/arm/v6"], &usual, &[2]),
            (&["linux/arm/v8"], &usual, &[3]),
            (&["windows/amd64"], &usual, &[4]),
            (&["all"], &usual, &[0, 1, 2, 3, 4]),
            (&[], &usual, &[0, 1, 2, 3, 4]),
            (&["s390x", "amd64"], &usual, &[0]),
            // A manifest without a platform is always selected.
            (&["amd64"], &["linux/amd64", "none", "linux/s390x"], &[0, 1]),
            (&["riscv64"], &["none"], &[0]),
            (&["linux/amd64/v2"], &["linux/amd64", "linux/amd64/v3"], &[0]),
        ] {
            assert_eq!(chosen(wanted, platforms).unwrap(), expected, "{wanted:?} of {platforms:?}");
        }
    }

    #[test]
    fn default_and_empty_list_select_every_platform() {
        assert_eq!(Platforms::default(), Platforms::all());
        assert_eq!(Platforms::parse([]), Ok(Platforms::default()));
        let index = index(&["linux/amd64", "windows/amd64"]);
        assert_eq!(Platforms::default().choose(&index).unwrap().len(), 2);
    }

    #[test]
    fn empty_selection_error_lists_available_platforms() {
        let error = chosen(&["s390x"], &["linux/amd64", "linux/arm64/v8"]).unwrap_err();
        assert!(error.contains("linux/s390x") && error.contains("linux/amd64, linux/arm64/v8"), "{error}");
        assert!(chosen(&["amd64"], &[]).unwrap_err().contains("available: none"));
        // An attestation of an unselected image is not an image.
        assert!(chosen(&["s390x"], &["linux/amd64", "unknown/unknown"]).is_err());
    }

    #[test]
    fn attestation_is_selected_with_its_subject() {
        let mut index = index(&["linux/amd64", "linux/arm64", "unknown/unknown"]);
        let about = index.manifests[1].digest.to_string();
        index.manifests[2].annotations.insert(ABOUT.to_owned(), about);
        let choose = |wanted| Platforms::parse([wanted]).unwrap().choose(&index).unwrap().len();
        assert_eq!((choose("amd64"), choose("arm64")), (1, 2));
    }

    #[test]
    fn auto_resolves_to_node_platforms() {
        let auto = Platforms::parse(["auto", "linux/s390x"]).unwrap();
        assert!(auto.is_auto());
        let nodes = auto.with_nodes([PlatformPattern::of_node("linux", "arm64")]);
        assert_eq!(nodes.to_string(), "linux/arm64, linux/s390x");
        assert_eq!(Platforms::parse(["auto"]).unwrap().with_nodes([]), Platforms::all());
        for text in ["", "linux/", "a/b/c/d", "Linux/amd64", "amd 64"] {
            assert!(Platforms::parse([text]).is_err(), "{text}");
        }
    }
}
