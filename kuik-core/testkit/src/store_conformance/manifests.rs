//! Manifests and tags.

use futures::future::try_join_all;

use super::{Check, Violation};
use kuik_core::content::{Algorithm, Digest, Freshness, TagOrDigest};

/// Number of concurrent pushes to one tag.
const PUSHES: usize = 8;

pub(super) async fn bytes(check: Check) -> Result<(), Violation> {
    let (repository, tag) = (check.repository("app")?, check.tag("latest")?);
    let manifest = check.manifest("image", |_| {})?;
    let claim = "a manifest that was not pushed is absent";
    check.manifest_is_absent(claim, &repository, manifest.digest()).await?;
    check.manifest_is_absent(claim, &repository, &tag).await?;

    check.put_manifest(&repository, &manifest, None).await?;
    check
        .manifest_is("a manifest is stored byte for byte", &repository, manifest.digest(), &manifest)
        .await?;
    check.manifest_is_absent("a manifest that was pushed without a tag has none", &repository, &tag).await?;
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
    let claim = "a manifest is stored under the digest that it was pushed with";
    check.manifest_is(claim, &repository, &digest, &manifest).await?;
    check.manifest_is(claim, &repository, &tag, &manifest).await
}

pub(super) async fn tag_moves(check: Check) -> Result<(), Violation> {
    let (repository, tag) = (check.repository("app")?, check.tag("latest")?);
    let (old, new) = (check.manifest("old", |_| {})?, check.manifest("new", |_| {})?);
    for manifest in [&old, &new, &old] {
        check.put_manifest(&repository, manifest, Some(&tag)).await?;
        check
            .manifest_is("a tag points to the manifest of the last push", &repository, &tag, manifest)
            .await?;
    }
    let claim = "a manifest stays after its tag has moved";
    check.manifest_is(claim, &repository, new.digest(), &new).await
}

pub(super) async fn concurrent_pushes(check: Check) -> Result<(), Violation> {
    let (repository, tag) = (check.repository("app")?, check.tag("latest")?);
    let manifests =
        (0..PUSHES).map(|n| check.manifest(&format!("image-{n}"), |_| {})).collect::<Result<Vec<_>, _>>()?;
    try_join_all(manifests.iter().map(|manifest| check.put_manifest(&repository, manifest, Some(&tag))))
        .await?;
    let claim = "after concurrent pushes, a tag points to the manifest of one of them";
    let found = check.succeeds(claim, check.manifest_at(&repository, &tag).await)?;
    check.that(manifests.contains(&found), claim)?;
    for manifest in &manifests {
        let claim = "after concurrent pushes to one tag, every manifest is stored";
        check.manifest_is(claim, &repository, manifest.digest(), manifest).await?;
    }
    Ok(())
}
