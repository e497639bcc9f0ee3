//! Which manifests of an index are kept: those of the platforms that are wanted.
//!
//! Invariant: an index is never changed. What is chosen is kept with it, and what is not can be fetched when somebody
//! asks. No choice at all is an error that says what there is, and never an image without content.

use std::{collections::BTreeSet, fmt, str::FromStr};

use super::NoPlatform;
use crate::content::{Descriptor, Digest, ImageIndex, Platform};

/// What an attestation in an index says that it is about.
const ABOUT: &str = "vnd.docker.reference.digest";
/// How much of a long list of platforms is told.
const MAX_TOLD: usize = 20;

/// A platform that is wanted: `amd64` (of Linux), `linux/arm64`, `linux/arm/v7`.
///
/// Without a variant, every variant will do. With one, so do older ones, as engines have it: a machine for `arm/v7` runs
/// `arm/v6`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PlatformPattern {
    os: String,
    architecture: String,
    variant: Option<u32>,
}

/// A text that is no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a platform: write an architecture (amd64), os/architecture, os/architecture/variant, auto or all"
)]
pub struct InvalidPlatform(String);

/// The platforms that are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Platforms {
    all: bool,
    auto: bool,
    named: BTreeSet<PlatformPattern>,
}

impl Platforms {
    /// Every platform.
    #[must_use]
    pub fn all() -> Self {
        Self { all: true, ..Self::default() }
    }

    /// The platforms of a list, as `--arch` gives them: see [`PlatformPattern`]; `auto` are those of the nodes, `all` is
    /// every one. An empty list is every one, too.
    ///
    /// # Errors
    /// Names the first that is none.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, InvalidPlatform> {
        let mut platforms = Self::default();
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

    /// Whether they depend on the nodes.
    #[must_use]
    pub fn is_auto(&self) -> bool {
        self.auto && !self.all
    }

    /// These platforms, where the nodes have those. Where they are asked for and none is known, every one is wanted: too
    /// much is better than nothing.
    #[must_use]
    pub fn with_nodes(&self, nodes: impl IntoIterator<Item = PlatformPattern>) -> Self {
        if !self.is_auto() {
            return self.clone();
        }
        let mut named = self.named.clone();
        named.extend(nodes);
        Self { all: named.is_empty(), auto: false, named }
    }

    /// The manifests of an index that are kept.
    ///
    /// Beside those of the platforms, that is every one that names no platform, and what is attested about those that are
    /// kept.
    ///
    /// # Errors
    /// Where there is none for any platform.
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

impl PlatformPattern {
    /// The platform of a node, as its labels `kubernetes.io/os` and `kubernetes.io/arch` say it.
    #[must_use]
    pub fn of_node(os: &str, architecture: &str) -> Self {
        Self { os: os.to_owned(), architecture: normal(architecture).to_owned(), variant: None }
    }

    /// The manifests for it: all of them where every variant will do, else those of the best.
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

    /// The variant of a platform that will do.
    fn fits(&self, platform: &Platform) -> Option<u32> {
        if platform.os != self.os || normal(&platform.architecture) != self.architecture {
            return None;
        }
        let variant = variant(&self.architecture, platform.variant.as_deref());
        self.variant.is_none_or(|most| variant <= most).then_some(variant)
    }
}

/// One name for one architecture.
fn normal(architecture: &str) -> &str {
    match architecture {
        "x86_64" | "x86-64" => "amd64",
        "aarch64" => "arm64",
        "armhf" | "armel" => "arm",
        "i386" => "386",
        other => other,
    }
}

/// The number of a variant, with what is meant where there is none.
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

/// What an index has, for people.
fn offered(index: &ImageIndex) -> String {
    let shown = |platform: &Platform| {
        let variant = platform.variant.as_ref().map_or(String::new(), |variant| format!("/{variant}"));
        format!("{}/{}{variant}", platform.os, platform.architecture)
    };
    let platforms: BTreeSet<String> =
        index.manifests.iter().filter_map(|listed| listed.platform.as_ref()).map(shown).collect();
    match platforms.len() {
        0 => "nothing".to_owned(),
        count if count > MAX_TOLD => {
            let some: Vec<String> = platforms.into_iter().take(MAX_TOLD).collect();
            format!("{} and {} more", some.join(", "), count - MAX_TOLD)
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
    fn platforms_are_chosen() {
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
            // One that names no platform belongs to every choice.
            (&["amd64"], &["linux/amd64", "none", "linux/s390x"], &[0, 1]),
            (&["riscv64"], &["none"], &[0]),
            (&["linux/amd64/v2"], &["linux/amd64", "linux/amd64/v3"], &[0]),
        ] {
            assert_eq!(chosen(wanted, platforms).unwrap(), expected, "{wanted:?} of {platforms:?}");
        }
    }

    #[test]
    fn no_choice_says_what_there_is() {
        let error = chosen(&["s390x"], &["linux/amd64", "linux/arm64/v8"]).unwrap_err();
        assert!(error.contains("linux/s390x") && error.contains("linux/amd64, linux/arm64/v8"), "{error}");
        assert!(chosen(&["amd64"], &[]).unwrap_err().contains("nothing"));
        // What is attested about images that are not kept is no image.
        assert!(chosen(&["s390x"], &["linux/amd64", "unknown/unknown"]).is_err());
    }

    #[test]
    fn what_is_attested_goes_with_what_it_is_about() {
        let mut index = index(&["linux/amd64", "linux/arm64", "unknown/unknown"]);
        let about = index.manifests[1].digest.to_string();
        index.manifests[2].annotations.insert(ABOUT.to_owned(), about);
        let choose = |wanted| Platforms::parse([wanted]).unwrap().choose(&index).unwrap().len();
        assert_eq!((choose("amd64"), choose("arm64")), (1, 2));
    }

    #[test]
    fn nodes_say_what_is_wanted() {
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
