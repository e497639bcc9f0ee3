//! Uploads: resumable, exclusive, verified when finished, purged when idle.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::{TryStreamExt as _, future::try_join_all};

use super::{Check, Violation};
use kuik_core::{
    content::{Algorithm, Digest, SourceErrorKind, Upload, UploadId},
    reference::RepositoryName,
};

/// Number of concurrent uploads of one blob.
const UPLOADS: usize = 8;

async fn start(check: &Check, repository: &RepositoryName) -> Result<UploadId, Violation> {
    check.succeeds("an upload can be started", check.store.start_upload(repository).await)
}

async fn resume(
    check: &Check,
    repository: &RepositoryName,
    id: &UploadId,
    offset: usize,
) -> Result<Box<dyn Upload>, Violation> {
    let upload = check.store.upload(repository, id).await;
    let upload = check.succeeds("a started upload can be resumed", upload)?;
    check.same("an upload resumes at its acknowledged offset", &upload.offset(), &(offset as u64))?;
    Ok(upload)
}

async fn append(check: &Check, upload: &mut Box<dyn Upload>, chunks: &[Bytes]) -> Result<(), Violation> {
    let before = upload.offset();
    check.succeeds("an upload can be appended to", upload.append(chunks).await)?;
    let added: usize = chunks.iter().map(Bytes::len).sum();
    let claim = "appended bytes are acknowledged";
    check.same(claim, &upload.offset(), &(before + added as u64))
}

async fn is_gone(check: &Check, repository: &RepositoryName, id: &UploadId) -> Result<(), Violation> {
    let upload = check.store.upload(repository, id).await;
    check.fails("an upload that ended is absent", SourceErrorKind::NotFound, upload)
}

pub(super) async fn resumed(check: Check) -> Result<(), Violation> {
    let repository = check.repository("app")?;
    for (name, algorithm, size) in [
        ("one", Algorithm::Sha256, 500_000),
        ("other", Algorithm::Sha512, 500_000),
        ("small", Algorithm::Sha256, 0),
    ] {
        let content = check.content(name, size);
        let digest = Digest::of(algorithm, &content);
        let half = content.len() / 2;
        let id = start(&check, &repository).await?;
        let mut upload = resume(&check, &repository, &id, 0).await?;
        append(&check, &mut upload, &[content.slice(..10), content.slice(10..half)]).await?;
        drop(upload);
        let mut upload = resume(&check, &repository, &id, half).await?;
        append(&check, &mut upload, &[]).await?;
        append(&check, &mut upload, &[Bytes::new(), content.slice(half..)]).await?;
        check.blob_is_absent("an unfinished upload is not visible as a blob", &repository, &digest).await?;
        drop(upload);
        let upload = resume(&check, &repository, &id, content.len()).await?;
        check.succeeds("an upload can be finished", upload.finish(&digest).await)?;
        check.blob_is(&repository, &digest, &content).await?;
        is_gone(&check, &repository, &id).await?;
    }
    let id = start(&check, &repository).await?;
    let upload = resume(&check, &repository, &id, 0).await?;
    let empty = Digest::sha256(b"");
    check.succeeds("an upload may be empty", upload.finish(&empty).await)?;
    check.blob_is(&repository, &empty, &Bytes::new()).await
}

pub(super) async fn exclusive(check: Check) -> Result<(), Violation> {
    let repository = check.repository("app")?;
    let id = start(&check, &repository).await?;
    let mut upload = resume(&check, &repository, &id, 0).await?;
    let second = check.store.upload(&repository, &id).await;
    check.fails("an open upload is exclusive", SourceErrorKind::Unavailable, second)?;
    append(&check, &mut upload, &[Bytes::from_static(b"hello")]).await?;
    drop(upload);
    drop(resume(&check, &repository, &id, 5).await?);
    let never = UploadId::from_random([7; 16]);
    let upload = check.store.upload(&repository, &never).await;
    check.fails("an upload that was never started is absent", SourceErrorKind::NotFound, upload)
}

pub(super) async fn wrong_digest(check: Check) -> Result<(), Violation> {
    let repository = check.repository("app")?;
    let content = check.content("blob", 1000);
    for wrong in
        [Digest::sha256(&check.content("another", 1000)), Digest::of(Algorithm::Sha512, &content.slice(1..))]
    {
        let id = start(&check, &repository).await?;
        let mut upload = resume(&check, &repository, &id, 0).await?;
        append(&check, &mut upload, std::slice::from_ref(&content)).await?;
        let finished = upload.finish(&wrong).await;
        check.fails("a wrong digest is refused", SourceErrorKind::InvalidContent, finished)?;
        is_gone(&check, &repository, &id).await?;
        for digest in [&wrong, &Digest::sha256(&content)] {
            let claim = "after a wrong digest nothing is published";
            check.blob_is_absent(claim, &repository, digest).await?;
            check.same(claim, &check.succeeds(claim, check.store.has_blob(digest).await)?, &None)?;
        }
    }
    Ok(())
}

pub(super) async fn canceled(check: Check) -> Result<(), Violation> {
    let repository = check.repository("app")?;
    let content = check.content("blob", 1000);
    let id = start(&check, &repository).await?;
    let mut upload = resume(&check, &repository, &id, 0).await?;
    append(&check, &mut upload, std::slice::from_ref(&content)).await?;
    check.succeeds("an upload can be canceled", upload.cancel().await)?;
    is_gone(&check, &repository, &id).await?;
    let claim = "a canceled upload is not visible";
    check.blob_is_absent(claim, &repository, &Digest::sha256(&content)).await
}

pub(super) async fn purged(check: Check) -> Result<(), Violation> {
    let repository = check.repository("app")?;
    let (idle, held) = (start(&check, &repository).await?, start(&check, &repository).await?);
    for id in [&idle, &held] {
        let mut upload = resume(&check, &repository, id, 0).await?;
        append(&check, &mut upload, &[Bytes::from_static(b"hello")]).await?;
    }
    let hour = Duration::from_secs(3600);
    let purged = check.store.purge_uploads(SystemTime::now() - hour).await;
    check.succeeds("uploads can be purged", purged)?;
    let upload = resume(&check, &repository, &held, 5).await?;
    drop(resume(&check, &repository, &idle, 5).await?);

    // As if an hour had passed.
    let purged = check.store.purge_uploads(SystemTime::now() + hour).await;
    let purged = check.succeeds("idle uploads can be purged", purged)?;
    check.that(purged >= 1, "idle uploads are purged, and counted")?;
    is_gone(&check, &repository, &idle).await?;
    let digest = Digest::sha256(b"hello");
    check.succeeds("an open upload is not purged", upload.finish(&digest).await)?;
    check.blob_is(&repository, &digest, &Bytes::from_static(b"hello")).await
}

pub(super) async fn concurrent(check: Check) -> Result<(), Violation> {
    let repository = check.repository("app")?;
    let (own, shared) = (check.repository("own")?, check.content("shared", 200_000));
    let digest = Digest::sha256(&shared);
    let uploads = (0..UPLOADS).map(|n| {
        let (check, repository, own, shared, digest) = (&check, &repository, &own, &shared, &digest);
        async move {
            let content = check.content(&format!("own-{n}"), 100_000);
            for (repository, content) in [(repository, shared), (own, &content)] {
                let id = start(check, repository).await?;
                for (number, chunk) in content.chunks(30_000).enumerate() {
                    let mut upload = resume(check, repository, &id, number * 30_000).await?;
                    append(check, &mut upload, &[content.slice_ref(chunk)]).await?;
                }
                let upload = resume(check, repository, &id, content.len()).await?;
                let finished = upload.finish(&Digest::sha256(content)).await;
                check.succeeds("several uploads can be finished at once", finished)?;
            }
            check.blob_is(own, &Digest::sha256(&content), &content).await?;
            check.blob_is(repository, digest, shared).await
        }
    });
    try_join_all(uploads).await?;
    let blobs: Vec<_> = check.succeeds("blobs can be listed", check.store.blobs().try_collect().await)?;
    let kept = blobs.iter().filter(|blob| blob.digest == digest).count();
    check.same("a blob with concurrent uploads is stored once", &kept, &1)
}
