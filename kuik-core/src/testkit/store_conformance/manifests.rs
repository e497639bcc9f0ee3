//! Manifests and what tags point at.

use futures::future::try_join_all;

use super::{Check, Violation};
use crate::content::{Algorithm, Digest, Freshness, TagOrDigest};

/// How many push to one tag at once.
const PUSHES: usize = 8;

pub(super) async fn bytes(check: Check) -> Result<(), Violation> {
    let (repository, tag) = (check.repository("app")?, check.tag("latest")?);
    let manifest = check.manifest("image", |_| {})?;
    let claim = "a manifest that was not kept is not there";
    check.manifest_is_absent(claim, &repository, manifest.digest()).await?;
    check.manifest_is_absent(claim, &repository, &tag).await?;

    check.put_manifest(&repository, &manifest, None).await?;
    check.manifest_is("a manifest is kept as it came", &repository, manifest.digest(), &manifest).await?;
    check.manifest_is_absent("a manifest that is kept without a tag has none", &repository, &tag).await?;
    check.put_manifest(&repository, &manifest, Some(&tag)).await?;
    check.manifest_is("a manifest is found by its tag", &repository, &tag, &manifest).await?;

    let claim = "a tag is resolved to its manifest's descriptor";
    let at = TagOrDigest::Tag(tag);
    let resolved = check.store.resolve(&repository, &at, Freshness::Cached).await;
    check.same(claim, &check.succeeds(claim, resolved)?.content, &manifest.descriptor())
}

pub(super) async fn other_algorithm(check: Check) -> Result<(), Violation> {
    let (repository, tag) = (check.repository("app")?, check.tag("latest")?);
    let manifest = check.manifest("image", |_| {})?;
    let digest = Digest::of(Algorithm::Sha512, manifest.bytes());
    let Ok(manifest) = manifest.verified_as(&digest) else {
        return check.that(false, "a manifest can have a sha512 digest");
    };
    check.put_manifest(&repository, &manifest, Some(&tag)).await?;
    let claim = "a manifest is kept under the digest that it was pushed with";
    check.manifest_is(claim, &repository, &digest, &manifest).await?;
    check.manifest_is(claim, &repository, &tag, &manifest).await
}

pub(super) async fn tag_moves(check: Check) -> Result<(), Violation> {
    let (repository, tag) = (check.repository("app")?, check.tag("latest")?);
    let (old, new) = (check.manifest("old", |_| {})?, check.manifest("new", |_| {})?);
    for manifest in [&old, &new, &old] {
        check.put_manifest(&repository, manifest, Some(&tag)).await?;
        check.manifest_is("a tag points where it was moved last", &repository, &tag, manifest).await?;
    }
    let claim = "a manifest that a tag was moved away from stays";
    check.manifest_is(claim, &repository, new.digest(), &new).await
}

pub(super) async fn concurrent_pushes(check: Check) -> Result<(), Violation> {
    let (repository, tag) = (check.repository("app")?, check.tag("latest")?);
    let manifests =
        (0..PUSHES).map(|n| check.manifest(&format!("image-{n}"), |_| {})).collect::<Result<Vec<_>, _>>()?;
    try_join_all(manifests.iter().map(|manifest| check.put_manifest(&repository, manifest, Some(&tag))))
        .await?;
    let claim = "a tag that several push at once points at the manifest of one of them";
    let found = check.succeeds(claim, check.manifest_at(&repository, &tag).await)?;
    check.that(manifests.contains(&found), claim)?;
    for manifest in &manifests {
        let claim = "of several pushes to one tag at once, every manifest is kept";
        check.manifest_is(claim, &repository, manifest.digest(), manifest).await?;
    }
    Ok(())
}
