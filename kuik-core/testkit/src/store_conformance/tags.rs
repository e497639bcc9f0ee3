//! Tag lists and their pagination.

use futures::future::try_join_all;

use super::{Check, Violation};
use kuik_core::content::{SourceErrorKind, TagList, TagPage};

pub(super) async fn pages(check: Check) -> Result<(), Violation> {
    let repository = check.repository("app")?;
    let manifest = check.manifest("image", |_| {})?;
    // In byte order, which is neither numeric nor alphabetical.
    let expected = ["1", "10", "9", "A", "B-2", "_", "a", "a.b", "ab"];
    let tags = expected.iter().rev().map(|tag| check.tag(tag)).collect::<Result<Vec<_>, _>>()?;
    try_join_all(tags.iter().map(|tag| check.put_manifest(&repository, &manifest, Some(tag)))).await?;

    for size in 1..=expected.len() + 1 {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = TagPage { limit: Some(size), after: after.clone() };
            let claim = format!("a page of {size} tags after {after:?} can be read");
            let list = check.succeeds(&claim, check.store.tags(&repository, &page).await)?;
            check.that(list.tags.len() <= size, "a page has no more tags than requested")?;
            check.that(!list.more || list.tags.len() == size, "a page that is not the last is full")?;
            after = list.tags.last().cloned().or(after);
            seen.extend(list.tags);
            if !list.more || seen.len() > expected.len() {
                break;
            }
        }
        check.same("the pages have all tags in order", &seen, &expected.map(str::to_owned).to_vec())?;
    }

    let all = check.store.tags(&repository, &TagPage::default()).await;
    let all = check.succeeds("all tags can be read at once", all)?;
    let complete = TagList { tags: expected.map(str::to_owned).to_vec(), more: false };
    check.same("all tags are listed without a limit", &all, &complete)?;

    let page = TagPage { limit: None, after: Some("AA".to_owned()) };
    let list = check.succeeds("a list may start anywhere", check.store.tags(&repository, &page).await)?;
    let first = list.tags.first().map(String::as_str);
    check.same("a list may start after a missing tag", &first, &Some("B-2"))
}

pub(super) async fn none(check: Check) -> Result<(), Violation> {
    let (unknown, untagged) = (check.repository("unknown")?, check.repository("untagged")?);
    let listed = check.store.tags(&unknown, &TagPage::default()).await;
    check.fails("a missing repository has no tag list", SourceErrorKind::NotFound, listed)?;
    check.put_manifest(&untagged, &check.manifest("image", |_| {})?, None).await?;
    let listed = check.store.tags(&untagged, &TagPage::default()).await;
    let listed = check.succeeds("a repository without tags has a list", listed)?;
    check.same("the list is empty", &listed, &TagList { tags: Vec::new(), more: false })
}
