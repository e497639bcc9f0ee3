//! Referrers of manifests.

use super::{Check, Violation};
use kuik_core::{
    content::{DecodedManifest, Descriptor, Digest, ImageIndex, Manifest, fallback_tag},
    reference::RepositoryName,
};

const SBOM: &str = "application/vnd.example.sbom";

pub(super) async fn listed(check: Check) -> Result<(), Violation> {
    let (repository, neighbor) = (check.repository("app")?, check.repository("neighbor")?);
    let image = check.manifest("image", |_| {})?;
    let subject = image.digest();
    is(&check, &repository, subject, None, &[]).await?;

    // Referrers may be pushed before their subject.
    let sbom = check.manifest("sbom", |sbom| {
        sbom.artifact_type = Some(SBOM.to_owned());
        sbom.subject = Some(image.descriptor());
    })?;
    let signature = check.manifest("signature", |signature| signature.subject = Some(image.descriptor()))?;
    let mut list = ImageIndex::new(Vec::new());
    list.subject = Some(image.descriptor());
    list.artifact_type = Some(SBOM.to_owned());
    let list = check.encoded(&list)?;
    for manifest in [&sbom, &image, &signature, &list] {
        check.put_manifest(&repository, manifest, None).await?;
    }
    is(&check, &repository, subject, None, &[&sbom, &signature, &list]).await?;
    is(&check, &repository, subject, Some(SBOM), &[&sbom, &list]).await?;
    // The artifact type defaults to the media type of the configuration.
    let config = "application/vnd.oci.image.config.v1+json";
    is(&check, &repository, subject, Some(config), &[&signature]).await?;
    is(&check, &repository, subject, Some("none/such"), &[]).await?;
    is(&check, &repository, sbom.digest(), None, &[]).await?;
    is(&check, &neighbor, subject, None, &[]).await?;

    let deleted = check.store.delete_manifest(&repository, sbom.digest()).await;
    check.succeeds("a referrer can be deleted", deleted)?;
    is(&check, &repository, subject, None, &[&signature, &list]).await?;
    check.put_manifest(&repository, &sbom, None).await?;
    is(&check, &repository, subject, None, &[&sbom, &signature, &list]).await?;
    let deleted = check.store.delete_manifest(&repository, subject).await;
    check.succeeds("a subject can be deleted", deleted)?;
    is(&check, &repository, subject, None, &[&sbom, &signature, &list]).await?;
    tagged(&check).await
}

/// A client without support for the API has listed referrers under the fallback tag.
async fn tagged(check: &Check) -> Result<(), Violation> {
    let repository = check.repository("tagged")?;
    let image = check.manifest("image", |_| {})?;
    let subject = image.digest();
    let Some(tag) = fallback_tag(subject) else { return check.that(false, "a digest has a fallback tag") };
    let old = check.manifest("old", |old| old.artifact_type = Some(SBOM.to_owned()))?;
    let new = check.manifest("new", |new| new.subject = Some(image.descriptor()))?;
    let gone = check.manifest("gone", |gone| gone.subject = Some(image.descriptor()))?;
    let entries: Vec<Descriptor> = [&old, &new, &gone].map(Manifest::descriptor).to_vec();
    for manifest in [&image, &old, &new] {
        check.put_manifest(&repository, manifest, None).await?;
    }
    check.put_manifest(&repository, &check.encoded(&ImageIndex::new(entries))?, Some(&tag)).await?;
    is(check, &repository, subject, None, &[&old, &new]).await?;
    is(check, &repository, subject, Some(SBOM), &[&old]).await
}

/// Claims that these are the referrers, each with its own descriptor.
async fn is(
    check: &Check,
    repository: &RepositoryName,
    subject: &Digest,
    artifact_type: Option<&str>,
    expected: &[&Manifest],
) -> Result<(), Violation> {
    let claim = "referrers can be listed";
    let listed = check.succeeds(claim, check.store.referrers(repository, subject, artifact_type).await)?;
    let claim = "a requested filter is applied and reported";
    check.same(claim, &listed.filtered, &artifact_type.is_some())?;
    let index = Manifest::new(None, listed.index).ok().and_then(|index| index.decode().ok());
    let Some(DecodedManifest::Index(index)) = index else {
        return check.that(false, "referrers are listed as an image index");
    };
    let ordered = |mut descriptors: Vec<Descriptor>| {
        descriptors.sort_by(|one, other| one.digest.cmp(&other.digest));
        descriptors
    };
    let expected = expected.iter().map(|manifest| manifest.referrer_descriptor()).collect();
    let claim = "all referrers are listed, and nothing else";
    check.same(claim, &ordered(index.manifests), &ordered(expected))
}
