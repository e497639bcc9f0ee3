//! Referrers of an image: signatures, attestations and SBOMs.
//!
//! They come from the OCI referrers API and from the tags that cosign derives from a digest (`sha256-….sig`). None is
//! needed to run the image, so failures are recorded and skipped.

use crate::{
    content::{
        ContentSource, DecodedManifest, Digest, Freshness, Manifest, SourceError, TagOrDigest, fallback_tag,
    },
    reference::{RepositoryName, Tag},
};

use super::parts::Parts;

/// Maximum number of referrers copied per image.
const MAX_REFERRERS: usize = 32;
/// Suffixes that cosign appends to a digest.
const SUFFIXES: [&str; 3] = ["sig", "att", "sbom"];

/// A referrer of an image.
#[derive(Debug)]
pub(super) struct Referrer {
    /// Display name.
    pub(super) name: String,
    pub(super) manifest: Manifest,
    /// The cosign tag it was found by, if any.
    pub(super) tag: Option<Tag>,
    /// The referrers list it was found in, and the fallback tag for registries without the referrers API.
    pub(super) list: Option<(Tag, Manifest)>,
}

/// Result of a search.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) referrers: Vec<Referrer>,
    /// Referrers that could not be read.
    pub(super) skipped: Vec<String>,
}

/// A repository of a source to search.
#[derive(Debug, Clone, Copy)]
pub(super) struct Through<'a> {
    pub(super) source: &'a dyn ContentSource,
    pub(super) repository: &'a RepositoryName,
}

/// Finds the referrers of an image and of its manifests.
pub(super) async fn find(through: Through<'_>, parts: &Parts) -> Found {
    let mut found = Found::default();
    for manifest in parts.manifests.iter().rev().take(MAX_REFERRERS) {
        if let Err(error) = listed(through, manifest.digest(), &mut found).await {
            found.skipped.push(format!("referrers of {}: {}", manifest.digest(), error.chain()));
            // A registry that fails for one manifest will fail for the next.
            break;
        }
    }
    if let Some(top) = parts.manifests.last() {
        for suffix in SUFFIXES {
            let tag = format!("{}-{}.{suffix}", top.digest().algorithm_name(), top.digest().encoded());
            let Ok(tag) = tag.parse::<Tag>() else { continue };
            match tagged(through, tag.clone()).await {
                Ok(referrer) => found.referrers.push(referrer),
                Err(error) if error.is_not_found() => {}
                Err(error) => found.skipped.push(format!("{tag}: {}", error.chain())),
            }
        }
    }
    let over = found.referrers.len().saturating_sub(MAX_REFERRERS);
    if over > 0 {
        found.referrers.truncate(MAX_REFERRERS);
        found.skipped.push(format!("{over} referrers beyond the first {MAX_REFERRERS}"));
    }
    found
}

async fn listed(
    Through { source, repository }: Through<'_>,
    subject: &Digest,
    found: &mut Found,
) -> Result<(), SourceError> {
    let answer = source.referrers(repository, subject, None).await?;
    let Ok(list) = Manifest::new(None, answer.index) else { return Ok(()) };
    let Ok(DecodedManifest::Index(index)) = list.decode() else { return Ok(()) };
    let tag = fallback_tag(subject);
    for referrer in &index.manifests {
        if found.referrers.len() > MAX_REFERRERS {
            break;
        }
        let at = TagOrDigest::Digest(referrer.digest.clone());
        let manifest = source.manifest(repository, &at, Freshness::Cached).await?.content;
        let list = tag.clone().map(|tag| (tag, list.clone()));
        found.referrers.push(Referrer { name: referrer.digest.to_string(), manifest, tag: None, list });
    }
    Ok(())
}

/// Sends HEAD for the tag first: a miss then does not count as a pull.
async fn tagged(Through { source, repository }: Through<'_>, tag: Tag) -> Result<Referrer, SourceError> {
    let at = TagOrDigest::Tag(tag.clone());
    source.resolve(repository, &at, Freshness::Revalidate).await?;
    let manifest = source.manifest(repository, &at, Freshness::Revalidate).await?.content;
    Ok(Referrer { name: tag.to_string(), manifest, tag: Some(tag), list: None })
}
