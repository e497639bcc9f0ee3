//! What one repository has, another has not.

use super::{Check, Violation};
use crate::content::SourceErrorKind;

pub(super) async fn of_repositories(check: Check) -> Result<(), Violation> {
    // One's name is the beginning of another's.
    let (one, below, beside) =
        (check.repository("app")?, check.repository("app/b")?, check.repository("app-b")?);
    let tag = check.tag("latest")?;
    let content = check.content("blob", 1000);
    let manifest = check.manifest("image", |_| {})?;
    let digest = check.put_blob(std::slice::from_ref(&one), &content).await?;
    check.put_manifest(&one, &manifest, Some(&tag)).await?;
    let id = check.succeeds("an upload can be begun", check.store.start_upload(&one).await)?;

    for other in [&below, &beside] {
        check.blob_is_absent("a blob is not readable through another repository", other, &digest).await?;
        let claim = "a manifest is not readable through another repository";
        check.manifest_is_absent(claim, other, manifest.digest()).await?;
        check.manifest_is_absent(claim, other, &tag).await?;
        let listed = check.store.tags(other, &Default::default()).await;
        check.fails("tags are not listed for another repository", SourceErrorKind::NotFound, listed)?;
        let gone_on = check.store.upload(other, &id).await;
        let claim = "an upload cannot be gone on with through another repository";
        check.fails(claim, SourceErrorKind::NotFound, gone_on)?;
        let claim = "what a repository has not cannot be deleted through it";
        let tag = check.store.delete_tag(other, &tag).await;
        check.fails(claim, SourceErrorKind::NotFound, tag)?;
        let manifest = check.store.delete_manifest(other, manifest.digest()).await;
        check.fails(claim, SourceErrorKind::NotFound, manifest)?;
        let blob = check.store.unlink_blob(other, &digest).await;
        check.fails(claim, SourceErrorKind::NotFound, blob)?;
    }
    check.succeeds("a blob can be linked", check.store.link_blob(&below, &digest).await)?;
    check.blob_is(&below, &digest, &content).await?;
    check.blob_is(&one, &digest, &content).await?;
    check.manifest_is("a manifest stays where it is", &one, &tag, &manifest).await
}
