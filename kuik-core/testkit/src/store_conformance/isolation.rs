//! Isolation of repositories from each other.

use super::{Check, Violation};
use kuik_core::content::SourceErrorKind;

pub(super) async fn of_repositories(check: Check) -> Result<(), Violation> {
    // One name is a prefix of the others.
    let (one, below, sibling) =
        (check.repository("app")?, check.repository("app/b")?, check.repository("app-b")?);
    let tag = check.tag("latest")?;
    let content = check.content("blob", 1000);
    let manifest = check.manifest("image", |_| {})?;
    let digest = check.put_blob(std::slice::from_ref(&one), &content).await?;
    check.put_manifest(&one, &manifest, Some(&tag)).await?;

    for other in [&below, &sibling] {
        check.blob_is_absent("a blob is not readable through another repository", other, &digest).await?;
        let claim = "a manifest is not readable through another repository";
        check.manifest_is_absent(claim, other, manifest.digest()).await?;
        check.manifest_is_absent(claim, other, &tag).await?;
    }
    check.succeeds("a blob can be linked", check.store.link_blob(&below, &digest).await)?;
    check.blob_is(&below, &digest, &content).await?;
    check.blob_is(&one, &digest, &content).await?;
    check.manifest_is("a manifest stays in its repository", &one, &tag, &manifest).await
}

pub(super) async fn of_deletes(check: Check) -> Result<(), Violation> {
    let (one, below, sibling) =
        (check.repository("app")?, check.repository("app/b")?, check.repository("app-b")?);
    let tag = check.tag("latest")?;
    let content = check.content("blob", 1000);
    let manifest = check.manifest("image", |_| {})?;
    let digest = check.put_blob(std::slice::from_ref(&one), &content).await?;
    check.put_manifest(&one, &manifest, Some(&tag)).await?;
    let id = check.succeeds("an upload can be started", check.store.start_upload(&one).await)?;

    for other in [&below, &sibling] {
        let listed = check.store.tags(other, &Default::default()).await;
        check.fails("tags are not listed for another repository", SourceErrorKind::NotFound, listed)?;
        let resumed = check.store.upload(other, &id).await;
        let claim = "an upload cannot be resumed through another repository";
        check.fails(claim, SourceErrorKind::NotFound, resumed)?;
        let claim = "content of another repository cannot be deleted";
        let tag = check.store.delete_tag(other, &tag).await;
        check.fails(claim, SourceErrorKind::NotFound, tag)?;
        let manifest = check.store.delete_manifest(other, manifest.digest()).await;
        check.fails(claim, SourceErrorKind::NotFound, manifest)?;
        let blob = check.store.unlink_blob(other, &digest).await;
        check.fails(claim, SourceErrorKind::NotFound, blob)?;
    }
    check.blob_is(&one, &digest, &content).await?;
    check.manifest_is("a manifest stays in its repository", &one, &tag, &manifest).await
}
