//! Enumeration: everything stored is listed.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use futures::{TryStreamExt as _, future::try_join_all};

use super::{Check, Violation};
use kuik_core::{content::Digest, reference::RepositoryName};

/// More manifests than a store is likely to list in one page.
const MANY: usize = 300;

pub(super) async fn complete(check: Check) -> Result<(), Violation> {
    let before = SystemTime::now() - Duration::from_secs(3600);
    let names = ["with-blob", "with-manifest", "with-manifest/below", "with-upload", "with-many"];
    let [blob, manifest, below, upload, many] = names.map(|name| check.repository(name));
    let (blob, manifest, below, upload, many) = (blob?, manifest?, below?, upload?, many?);
    let content = check.content("blob", 1000);
    let digest = check.put_blob(std::slice::from_ref(&blob), &content).await?;
    let (image, other) = (check.manifest("image", |_| {})?, check.manifest("other", |_| {})?);
    check.put_manifest(&manifest, &image, Some(&check.tag("latest")?)).await?;
    check.put_manifest(&manifest, &other, None).await?;
    check.put_manifest(&below, &image, None).await?;
    check.succeeds("an upload can be started", check.store.start_upload(&upload).await)?;
    let images = (0..MANY).map(|number| check.manifest(&format!("image-{number}"), |_| {}));
    let images = images.collect::<Result<Vec<_>, _>>()?;
    for images in images.chunks(50) {
        try_join_all(images.iter().map(|image| check.put_manifest(&many, image, None))).await?;
    }
    let all: BTreeSet<Digest> = images.iter().map(|image| image.digest().clone()).collect();

    let found = check.store.repositories().try_collect::<Vec<_>>().await;
    let found = check.succeeds("repositories can be listed", found)?;
    for expected in [&blob, &manifest, &below, &upload, &many] {
        let times = found.iter().filter(|name| *name == expected).count();
        check.same(&format!("{expected} is listed once"), &times, &1)?;
    }
    let empty = check.repository("empty")?;
    check.that(!found.contains(&empty), "an empty repository is not listed")?;

    let expected = BTreeSet::from([image.digest().clone(), other.digest().clone()]);
    check.same("a repository's manifests are listed", &manifests(&check, &manifest).await?, &expected)?;
    let claim = "a repository's manifests exclude those of nested repositories";
    let expected = BTreeSet::from([image.digest().clone()]);
    check.same(claim, &manifests(&check, &below).await?, &expected)?;
    check.same("a large number of manifests is listed completely", &manifests(&check, &many).await?, &all)?;
    let claim = "a repository without manifests has none";
    check.same(claim, &manifests(&check, &blob).await?, &BTreeSet::new())?;

    let blobs = check.store.blobs().try_collect::<Vec<_>>().await;
    let blobs = check.succeeds("blobs can be listed", blobs)?;
    for (digest, size) in [(&digest, content.len()), (image.digest(), image.bytes().len())] {
        let found: Vec<_> = blobs.iter().filter(|blob| blob.digest == *digest).collect();
        let [found] = found.as_slice() else {
            return check.that(false, "everything stored is listed once, manifests too");
        };
        check.same("bytes are listed with their size", &found.size, &(size as u64))?;
        check.that(found.modified > before, "bytes are listed with the time of their last write")?;
    }
    let listed: BTreeSet<&Digest> = blobs.iter().map(|blob| &blob.digest).collect();
    check.that(all.iter().all(|digest| listed.contains(digest)), "everything stored is listed")
}

async fn manifests(check: &Check, repository: &RepositoryName) -> Result<BTreeSet<Digest>, Violation> {
    let found = check.store.manifests(repository).try_collect::<BTreeSet<_>>().await;
    check.succeeds("the manifests of a repository can be listed", found)
}
