//! What refers to an image: signatures, attestations, bills of materials, wherever its registry lists them.
//!
//! That is the list of referrers of the OCI specification, and the tags that cosign makes of a digest
//! (`sha256-….sig`). Nothing here is needed to run the image, so what cannot be found stops nothing.

use crate::{
    content::{
        ContentSource, DecodedManifest, Digest, Freshness, Manifest, SourceError, TagOrDigest, fallback_tag,
    },
    reference::{RepositoryName, Tag},
};

use super::parts::Parts;

/// How many referrers of an image are copied.
const MAX_REFERRERS: usize = 32;
/// What cosign puts behind a digest.
const SUFFIXES: [&str; 3] = ["sig", "att", "sbom"];

/// Something that refers to an image.
#[derive(Debug)]
pub(super) struct Referrer {
    /// For people.
    pub(super) name: String,
    pub(super) manifest: Manifest,
    /// The tag that it is found by, where it is.
    pub(super) tag: Option<Tag>,
    /// The list that it is found in, and the tag for that in a registry that keeps no such list itself.
    pub(super) list: Option<(Tag, Manifest)>,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) referrers: Vec<Referrer>,
    /// What could not be read.
    pub(super) without: Vec<String>,
}

/// Where it is looked for: a repository of a source.
#[derive(Debug, Clone, Copy)]
pub(super) struct Through<'a> {
    pub(super) source: &'a dyn ContentSource,
    pub(super) repository: &'a RepositoryName,
}

/// What refers to an image, or to one of its manifests.
pub(super) async fn find(through: Through<'_>, parts: &Parts) -> Found {
    let mut found = Found::default();
    for manifest in parts.manifests.iter().rev().take(MAX_REFERRERS) {
        if let Err(error) = listed(through, manifest.digest(), &mut found).await {
            found.without.push(format!("referrers of {}: {}", manifest.digest(), error.chain()));
            // One that cannot list those of one manifest cannot list those of the next.
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
                Err(error) => found.without.push(format!("{tag}: {}", error.chain())),
            }
        }
    }
    let over = found.referrers.len().saturating_sub(MAX_REFERRERS);
    if over > 0 {
        found.referrers.truncate(MAX_REFERRERS);
        found.without.push(format!("{over} referrers beyond the first {MAX_REFERRERS}"));
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

/// The tag is asked for first, because a question that is answered with nothing costs no pull.
async fn tagged(Through { source, repository }: Through<'_>, tag: Tag) -> Result<Referrer, SourceError> {
    let at = TagOrDigest::Tag(tag.clone());
    source.resolve(repository, &at, Freshness::Revalidate).await?;
    let manifest = source.manifest(repository, &at, Freshness::Revalidate).await?.content;
    Ok(Referrer { name: tag.to_string(), manifest, tag: Some(tag), list: None })
}
