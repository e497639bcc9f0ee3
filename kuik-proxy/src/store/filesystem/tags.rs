//! Pages of tags in lexical order and bounded memory: a directory of a million tags is read, and only the page is
//! kept.

use std::{collections::BinaryHeap, fs, io};

use kuik_core::{
    content::{TagList, TagPage},
    reference::Tag,
};

use super::{layout::RepositoryDir, links::read_link, walk};

/// Returns a page of a repository's tags.
///
/// # Errors
/// Fails with `NotFound` if the repository does not exist. One without tags has an empty list.
pub(super) fn list(repository: &RepositoryDir, page: &TagPage) -> io::Result<TagList> {
    if !fs::exists(repository.tags())? && !walk::has_something(repository)? {
        return Err(io::ErrorKind::NotFound.into());
    }
    let names = walk::children(repository.tags()).map(|child| child.map(|(name, _)| name));
    select(names, page, |name| match name.parse::<Tag>() {
        // A tag whose write was interrupted by a crash has no current link.
        Ok(tag) => Ok(read_link(&repository.tag_link(&tag))?.is_some()),
        Err(_) => Ok(false),
    })
}

/// Returns the page of those `names` that are tags. Only names that would be on the page are checked.
fn select(
    names: impl Iterator<Item = io::Result<String>>,
    page: &TagPage,
    mut is_tag: impl FnMut(&str) -> io::Result<bool>,
) -> io::Result<TagList> {
    let limit = page.limit.unwrap_or(usize::MAX);
    // The smallest names so far: those of the page, and one more to detect further pages.
    let mut smallest = BinaryHeap::new();
    for name in names {
        let name = name?;
        let full = smallest.len() > limit;
        let before = page.after.as_ref().is_some_and(|after| name <= *after);
        let beyond = full && smallest.peek().is_some_and(|largest| name >= *largest);
        if before || beyond || !is_tag(&name)? {
            continue;
        }
        smallest.push(name);
        if full {
            smallest.pop();
        }
    }
    let mut tags = smallest.into_sorted_vec();
    let more = tags.len() > limit;
    tags.truncate(limit);
    Ok(TagList { tags, more })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(limit: Option<usize>, after: Option<&str>) -> TagPage {
        TagPage { limit, after: after.map(str::to_owned) }
    }

    #[test]
    fn pages_follow_one_another() {
        let names = ["b", "d", "a", "!", "c"];
        for (limit, after, expected, more) in [
            (None, None, vec!["a", "b", "c", "d"], false),
            (Some(4), None, vec!["a", "b", "c", "d"], false),
            (Some(2), None, vec!["a", "b"], true),
            (Some(2), Some("b"), vec!["c", "d"], false),
            (Some(1), Some("aa"), vec!["b"], true),
            (Some(2), Some("d"), vec![], false),
            (Some(0), None, vec![], true),
        ] {
            let names = names.iter().map(|&name| Ok(name.to_owned()));
            let list = select(names, &page(limit, after), |name| Ok(name != "!")).unwrap();
            let expected = TagList { tags: expected.into_iter().map(str::to_owned).collect(), more };
            assert_eq!(list, expected, "{limit:?} after {after:?}");
        }
    }

    #[test]
    fn page_checks_few_of_a_million_names() {
        // In an order unrelated to the names.
        let names = (0..1_000_000_u64).map(|n| Ok(format!("{:06}", n * 7_919 % 1_000_000)));
        let mut asked = 0;
        let list = select(names, &page(Some(100), None), |_| {
            asked += 1;
            Ok(true)
        })
        .unwrap();
        assert_eq!((list.tags.len(), list.tags.first().map(String::as_str)), (100, Some("000000")));
        assert!(list.more && asked < 20_000, "{asked} of a million were checked");
    }
}
