//! Metadata entries: stored, replaced, removed, and invisible to registry clients.

use bytes::Bytes;
use futures::TryStreamExt as _;

use super::{Check, Violation};
use kuik_core::{
    content::{MAX_METADATA_BYTES, MetadataName, SourceErrorKind},
    reference::RepositoryName,
};

pub(super) async fn stored(check: Check) -> Result<(), Violation> {
    let (repository, below) = (check.repository("app")?, check.repository("app/below")?);
    let (one, other) = (name(&check, "mark.1.25")?, name(&check, "mark.sha256:00")?);
    let put = async |repository: &RepositoryName, name: &MetadataName, text: &'static str| {
        let text = Some(Bytes::from_static(text.as_bytes()));
        check.succeeds(
            "a metadata entry can be stored",
            check.store.put_metadata(repository, name, text).await,
        )
    };
    put(&repository, &one, "first").await?;
    put(&repository, &one, "second").await?;
    put(&repository, &other, "").await?;
    put(&below, &one, "below").await?;
    for (repository, name, expected) in [
        (&repository, &one, Some("second")),
        (&repository, &other, Some("")),
        (&below, &one, Some("below")),
        (&below, &other, None),
    ] {
        let claim = "a metadata entry has the text that was last stored under its name in its repository";
        let found = check.succeeds(claim, check.store.metadata(repository, name).await)?;
        check.same(claim, &found, &expected.map(|text| Bytes::from_static(text.as_bytes())))?;
    }
    let claim = "every metadata entry is listed once";
    let listed: Vec<_> = check.succeeds(claim, check.store.all_metadata().try_collect().await)?;
    for expected in [(&repository, &one), (&repository, &other), (&below, &one)] {
        let times = listed.iter().filter(|(repository, name)| (repository, name) == expected).count();
        check.same(claim, &times, &1)?;
    }
    let claim = "a repository with only metadata is not listed";
    let repositories: Vec<_> = check.succeeds(claim, check.store.repositories().try_collect().await)?;
    check.that(!repositories.contains(&repository), claim)?;

    let claim = "a metadata entry can be removed, and removed again";
    for _ in 0..2 {
        check.succeeds(claim, check.store.put_metadata(&repository, &one, None).await)?;
    }
    let claim = "a removed metadata entry is absent, and the others stay";
    check.same(claim, &check.succeeds(claim, check.store.metadata(&repository, &one).await)?, &None)?;
    let listed: Vec<_> = check.succeeds(claim, check.store.all_metadata().try_collect().await)?;
    check.that(!listed.contains(&(repository.clone(), one)), claim)?;
    check.that(listed.contains(&(repository.clone(), other.clone())), claim)?;

    let large = Some(Bytes::from(vec![b'x'; MAX_METADATA_BYTES + 1]));
    let refused = check.store.put_metadata(&repository, &other, large).await;
    check.fails("a metadata entry that is too large is refused", SourceErrorKind::Unsupported, refused)?;
    let free = check.store.free_bytes().await;
    check.succeeds("a store reports its free space, or that it is unknown", free).map(drop)
}

fn name(check: &Check, text: &str) -> Result<MetadataName, Violation> {
    text.parse().map_err(|_| check.violation("the suite's own metadata names are valid", None))
}
