//! Blobs: atomicity, verification, ranges, concurrent writers.

use bytes::Bytes;
use futures::{TryStreamExt as _, future::try_join_all};

use super::{Check, Violation};
use kuik_core::content::{ByteRange, Digest, SourceErrorKind};

/// Number of concurrent writers of one blob.
const WRITERS: usize = 8;

pub(super) async fn atomicity(check: Check) -> Result<(), Violation> {
    let repository = check.repository("app")?;
    let content = check.content("blob", 300_000);
    let digest = Digest::sha256(&content);
    let (first, second) = (content.slice(..100_000), content.slice(100_000..));

    let mut writer = check.succeeds("a blob write can be started", check.store.write_blob().await)?;
    check.succeeds("a blob can be written", writer.append(std::slice::from_ref(&first)).await)?;
    let claim = "a blob that is being written is not visible";
    check.blob_is_absent(claim, &repository, &digest).await?;
    check.same(claim, &check.succeeds(claim, check.store.has_blob(&digest).await)?, &None)?;
    let spooled = check.succeeds("written bytes can be read", writer.spool().read(10, 1000).await)?;
    let expected = content.slice(10..1000);
    check.that(expected.starts_with(&spooled) && !spooled.is_empty(), "the bytes read were written")?;
    drop(writer);
    check.blob_is_absent("an abandoned blob is not visible", &repository, &digest).await?;

    let mut writer = check.succeeds("a blob write can be started", check.store.write_blob().await)?;
    let spool = writer.spool();
    let written = writer.append(&[first, Bytes::new(), second]).await;
    check.succeeds("a blob can be written in pieces", written)?;
    let published = writer.publish(check.verified(&content)?, std::slice::from_ref(&repository)).await;
    check.succeeds("a blob can be published", published)?;
    check.blob_is(&repository, &digest, &content).await?;
    let claim = "the store knows the size of a blob";
    let size = check.succeeds(claim, check.store.has_blob(&digest).await)?;
    check.same(claim, &size, &Some(content.len() as u64))?;
    let claim = "written bytes can be read after publishing too";
    check.that(!check.succeeds(claim, spool.read(299_000, 300_000).await)?.is_empty(), claim)?;

    let empty = check.put_blob(std::slice::from_ref(&repository), &Bytes::new()).await?;
    check.blob_is(&repository, &empty, &Bytes::new()).await
}

pub(super) async fn verification(check: Check) -> Result<(), Violation> {
    let repository = check.repository("app")?;
    let content = check.content("blob", 1000);
    let digest = Digest::sha256(&content);
    let mut writer = check.succeeds("a blob write can be started", check.store.write_blob().await)?;
    let written = writer.append(&[content.slice(..999)]).await;
    check.succeeds("a blob can be written", written)?;
    // The witness is for one byte more than the written ones.
    let published = writer.publish(check.verified(&content)?, std::slice::from_ref(&repository)).await;
    check.fails("unverified content is not published", SourceErrorKind::Storage, published)?;
    check.blob_is_absent("unverified content is not visible", &repository, &digest).await
}

pub(super) async fn ranges(check: Check) -> Result<(), Violation> {
    let repository = check.repository("app")?;
    let content = check.content("blob", 9_000_000);
    let size = content.len() as u64;
    let digest = check.put_blob(std::slice::from_ref(&repository), &content).await?;
    let from = |first, last| ByteRange::From { first, last };
    for (range, expected) in [
        (from(0, Some(0)), 0..1),
        (from(7, Some(100_006)), 7..100_007),
        (from(4_194_303, Some(4_194_304)), 4_194_303..4_194_305),
        (from(1, None), 1..size),
        (from(size - 1, Some(u64::MAX)), size - 1..size),
        (ByteRange::Suffix { length: 5_000_000 }, size - 5_000_000..size),
        (ByteRange::Suffix { length: u64::MAX }, 0..size),
    ] {
        let claim = format!("the range {range:?} of a blob can be read");
        let blob = check.succeeds(&claim, check.store.blob(&repository, &digest, range).await)?.content;
        check.same("a partial blob has its range", &blob.range, &Some(expected.clone()))?;
        check.same("a partial blob has the size of the whole", &blob.size, &Some(size))?;
        let read: Vec<Bytes> = check.succeeds(&claim, blob.body.try_collect().await)?;
        let offset = |position: u64| usize::try_from(position).unwrap_or(usize::MAX);
        let expected = content.slice(offset(expected.start)..offset(expected.end));
        check.that(read.concat() == expected, format!("the range {range:?} has the right bytes"))?;
    }
    for range in [from(size, None), from(size, Some(size)), ByteRange::Suffix { length: 0 }] {
        let read = check.read(&repository, &digest, range).await;
        let claim = format!("the range {range:?} outside the blob is refused");
        check.fails(&claim, SourceErrorKind::RangeNotSatisfiable, read)?;
    }
    Ok(())
}

pub(super) async fn concurrent_writers(check: Check) -> Result<(), Violation> {
    let content = check.content("blob", 1_000_000);
    let digest = Digest::sha256(&content);
    let repositories =
        (0..WRITERS).map(|n| check.repository(&format!("app-{n}"))).collect::<Result<Vec<_>, _>>()?;
    let writers =
        repositories.iter().map(|repository| check.put_blob(std::slice::from_ref(repository), &content));
    try_join_all(writers).await?;
    for repository in &repositories {
        check.blob_is(repository, &digest, &content).await?;
    }
    Ok(())
}

pub(super) async fn stored_once(check: Check) -> Result<(), Violation> {
    let content = check.content("blob", 1_000_000);
    let digest = Digest::sha256(&content);
    let repository = check.repository("app")?;
    let writers = (0..WRITERS).map(|_| check.put_blob(std::slice::from_ref(&repository), &content));
    try_join_all(writers).await?;
    let blobs: Vec<_> = check.succeeds("blobs can be listed", check.store.blobs().try_collect().await)?;
    let kept = blobs.iter().filter(|blob| blob.digest == digest).count();
    check.same("a blob with concurrent writers is stored once", &kept, &1)
}
