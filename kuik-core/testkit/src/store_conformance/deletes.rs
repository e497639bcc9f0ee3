//! Deletes: the deleted item is removed, everything else stays.

use futures::TryStreamExt as _;

use super::{Check, Violation};
use kuik_core::content::{SourceErrorKind, TagPage};

pub(super) async fn tag(check: Check) -> Result<(), Violation> {
    let repository = check.repository("app")?;
    let (one, other) = (check.tag("one")?, check.tag("other")?);
    let manifest = check.manifest("image", |_| {})?;
    check.put_manifest(&repository, &manifest, Some(&one)).await?;
    check.put_manifest(&repository, &manifest, Some(&other)).await?;

    check.succeeds("a tag can be deleted", check.store.delete_tag(&repository, &one).await)?;
    check.manifest_is_absent("a deleted tag is gone", &repository, &one).await?;
    let claim = "another tag on the same manifest stays";
    check.manifest_is(claim, &repository, &other, &manifest).await?;
    let listed = check.succeeds(claim, check.store.tags(&repository, &TagPage::default()).await)?;
    check.same(claim, &listed.tags, &vec!["other".to_owned()])?;
    let again = check.store.delete_tag(&repository, &one).await;
    check.fails("a tag is deleted once", SourceErrorKind::NotFound, again)?;

    check.succeeds("a tag can be deleted", check.store.delete_tag(&repository, &other).await)?;
    let claim = "a manifest stays when its last tag is deleted";
    check.manifest_is(claim, &repository, manifest.digest(), &manifest).await?;
    check.put_manifest(&repository, &manifest, Some(&one)).await?;
    check.manifest_is("a deleted tag can be pushed again", &repository, &one, &manifest).await
}

pub(super) async fn manifest(check: Check) -> Result<(), Violation> {
    let (repository, neighbor) = (check.repository("app")?, check.repository("neighbor")?);
    let (one, other, kept) = (check.tag("one")?, check.tag("other")?, check.tag("kept")?);
    let (manifest, stays) = (check.manifest("image", |_| {})?, check.manifest("another", |_| {})?);
    for (repository, manifest, tag) in [
        (&repository, &manifest, &one),
        (&repository, &manifest, &other),
        // A tag that pointed to the manifest before, but no longer does.
        (&repository, &manifest, &kept),
        (&repository, &stays, &kept),
        (&neighbor, &manifest, &one),
    ] {
        check.put_manifest(repository, manifest, Some(tag)).await?;
    }
    let deleted = check.store.delete_manifest(&repository, manifest.digest()).await;
    check.succeeds("a manifest can be deleted", deleted)?;
    check.manifest_is_absent("a deleted manifest is gone", &repository, manifest.digest()).await?;
    for tag in [&one, &other] {
        check.manifest_is_absent("its tags are gone", &repository, tag).await?;
    }
    check.manifest_is("a tag that points elsewhere stays", &repository, &kept, &stays).await?;
    let claim = "a list has no dangling tag";
    let listed = check.succeeds(claim, check.store.tags(&repository, &TagPage::default()).await)?;
    check.same(claim, &listed.tags, &vec!["kept".to_owned()])?;
    let claim = "another repository's manifest and tags stay";
    check.manifest_is(claim, &neighbor, &one, &manifest).await?;
    check.manifest_is(claim, &neighbor, manifest.digest(), &manifest).await?;

    let again = check.store.delete_manifest(&repository, manifest.digest()).await;
    check.fails("a manifest is deleted once", SourceErrorKind::NotFound, again)?;
    check.put_manifest(&repository, &manifest, Some(&one)).await?;
    check.manifest_is("a deleted manifest can be pushed again", &repository, &one, &manifest).await
}

pub(super) async fn blob(check: Check) -> Result<(), Violation> {
    let (repository, neighbor) = (check.repository("app")?, check.repository("neighbor")?);
    let content = check.content("blob", 1000);
    let digest = check.put_blob(&[repository.clone(), neighbor.clone()], &content).await?;
    check.succeeds("a blob can be deleted", check.store.unlink_blob(&repository, &digest).await)?;
    check.blob_is_absent("a deleted blob is gone", &repository, &digest).await?;
    check.blob_is(&neighbor, &digest, &content).await?;
    let again = check.store.unlink_blob(&repository, &digest).await;
    check.fails("a blob is deleted once", SourceErrorKind::NotFound, again)?;
    let linked = check.store.link_blob(&repository, &digest).await;
    check.succeeds("a deleted blob can be linked again", linked)?;
    check.blob_is(&repository, &digest, &content).await
}

pub(super) async fn bytes(check: Check) -> Result<(), Violation> {
    let repository = check.repository("app")?;
    let content = check.content("blob", 1000);
    let digest = check.put_blob(std::slice::from_ref(&repository), &content).await?;
    check.succeeds("a blob can be deleted", check.store.unlink_blob(&repository, &digest).await)?;
    let claim = "unreferenced bytes can be removed, and removed again";
    check.succeeds(claim, check.store.remove_blob(&digest).await)?;
    check.succeeds(claim, check.store.remove_blob(&digest).await)?;
    let claim = "removed bytes are absent";
    check.same(claim, &check.succeeds(claim, check.store.has_blob(&digest).await)?, &None)?;
    let linked = check.store.link_blob(&repository, &digest).await;
    check.fails("an absent blob cannot be linked", SourceErrorKind::NotFound, linked)?;
    check.put_blob(std::slice::from_ref(&repository), &content).await?;
    check.blob_is(&repository, &digest, &content).await
}

pub(super) async fn quarantine(check: Check) -> Result<(), Violation> {
    let repository = check.repository("app")?;
    let content = check.content("blob", 1000);
    let manifest = check.manifest("image", |_| {})?;
    // The second time, a quarantined copy exists already.
    for _ in 0..2 {
        let digest = check.put_blob(std::slice::from_ref(&repository), &content).await?;
        check.put_manifest(&repository, &manifest, None).await?;
        check.blob_is(&repository, &digest, &content).await?;
        for digest in [&digest, manifest.digest()] {
            let quarantined = check.store.quarantine_blob(digest).await;
            check.succeeds("bytes can be quarantined", quarantined)?;
            let claim = "quarantined bytes are absent";
            check.same(claim, &check.succeeds(claim, check.store.has_blob(digest).await)?, &None)?;
            let again = check.store.quarantine_blob(digest).await;
            check.fails("absent bytes cannot be quarantined", SourceErrorKind::NotFound, again)?;
        }
        let claim = "quarantined content is not served";
        check.blob_is_absent(claim, &repository, &digest).await?;
        check.manifest_is_absent(claim, &repository, manifest.digest()).await?;
        let linked = check.store.link_blob(&repository, &digest).await;
        check.fails("quarantined content cannot be linked", SourceErrorKind::NotFound, linked)?;
        let claim = "quarantined content is not listed";
        let listed: Vec<_> = check.succeeds(claim, check.store.blobs().try_collect().await)?;
        let aside = [&digest, manifest.digest()];
        check.that(!listed.iter().any(|blob| aside.contains(&&blob.digest)), claim)?;
    }
    let digest = check.put_blob(std::slice::from_ref(&repository), &content).await?;
    check.put_manifest(&repository, &manifest, None).await?;
    check.blob_is(&repository, &digest, &content).await?;
    let claim = "a quarantined manifest can be pushed again";
    check.manifest_is(claim, &repository, manifest.digest(), &manifest).await
}
