//! Notes: kept, replaced, removed, and no part of what clients see.

use bytes::Bytes;
use futures::TryStreamExt as _;

use super::{Check, Violation};
use crate::{
    content::{MAX_NOTE_BYTES, NoteName, SourceErrorKind},
    reference::RepositoryName,
};

pub(super) async fn kept(check: Check) -> Result<(), Violation> {
    let (repository, below) = (check.repository("app")?, check.repository("app/below")?);
    let (one, other) = (name(&check, "mark.1.25")?, name(&check, "mark.sha256:00")?);
    let put = async |repository: &RepositoryName, name: &NoteName, text: &'static str| {
        let text = Some(Bytes::from_static(text.as_bytes()));
        check.succeeds("a note can be kept", check.store.put_note(repository, name, text).await)
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
        let claim = "a note is what was kept last under its name, in its repository";
        let found = check.succeeds(claim, check.store.note(repository, name).await)?;
        check.same(claim, &found, &expected.map(|text| Bytes::from_static(text.as_bytes())))?;
    }
    let claim = "every note is listed once";
    let listed: Vec<_> = check.succeeds(claim, check.store.notes().try_collect().await)?;
    for expected in [(&repository, &one), (&repository, &other), (&below, &one)] {
        let times = listed.iter().filter(|(repository, name)| (repository, name) == expected).count();
        check.same(claim, &times, &1)?;
    }
    let claim = "a repository of which there are only notes is not listed";
    let repositories: Vec<_> = check.succeeds(claim, check.store.repositories().try_collect().await)?;
    check.that(!repositories.contains(&repository), claim)?;

    let claim = "a note can be removed, and removed again";
    for _ in 0..2 {
        check.succeeds(claim, check.store.put_note(&repository, &one, None).await)?;
    }
    let claim = "a note that was removed is gone, and the others stay";
    check.same(claim, &check.succeeds(claim, check.store.note(&repository, &one).await)?, &None)?;
    let listed: Vec<_> = check.succeeds(claim, check.store.notes().try_collect().await)?;
    check.that(!listed.contains(&(repository.clone(), one)), claim)?;
    check.that(listed.contains(&(repository.clone(), other.clone())), claim)?;

    let large = Some(Bytes::from(vec![b'x'; MAX_NOTE_BYTES + 1]));
    let refused = check.store.put_note(&repository, &other, large).await;
    check.fails("a note that is too large is refused", SourceErrorKind::Unsupported, refused)?;
    let free = check.store.free_bytes().await;
    check.succeeds("a store says how much space it has, or that nobody knows", free).map(drop)
}

fn name(check: &Check, text: &str) -> Result<NoteName, Violation> {
    text.parse().map_err(|_| check.violation("the suite's own names are names", None))
}
