//! Pages of tags in lexical order and bounded memory: only as many of a million tags are read as the page needs.
//!
//! A bucket lists keys, and each tag is a part of one, followed by `/`. So `1.25-slim/…` is listed before `1.25/…`: a
//! tag is listed after the tags that extend it with `-` or `.`, and all others are in the order of tags. When enough
//! tags have been listed, the only missing ones that sort before the last are therefore prefixes of it. Those are
//! requested one by one.

use futures::{StreamExt as _, TryStreamExt as _, stream};
use kuik_core::{
    content::{SourceError, SourceErrorKind, TagList, TagPage},
    reference::Tag,
};

use super::{RepositoryKey, Shared};
use crate::store::layout;

/// Number of concurrent requests for prefixes of a tag.
const AT_ONCE: usize = 16;

impl Shared {
    /// Returns a page of a repository's tags.
    ///
    /// # Errors
    /// Fails with `NotFound` if the repository does not exist. One without tags has an empty list.
    pub(super) async fn tags(
        &self,
        attempted: String,
        repository: &RepositoryKey,
        page: &TagPage,
    ) -> Result<TagList, SourceError> {
        let after = page.after.as_deref().unwrap_or_default();
        let limit = page.limit.unwrap_or(usize::MAX);
        let prefix = repository.at(layout::TAGS);
        // Every tag after `after` is also after its longest prefix that a key can have.
        let start =
            after.find(|c| !is_in_tags(c)).map_or(Some(after), |end| after.get(..end)).unwrap_or_default();
        let start = (!matches!(start, "" | "." | "..")).then(|| format!("{prefix}/{start}"));
        let mut listed = self.bucket.list(attempted.clone(), &prefix, start.as_deref());
        let mut tags: Vec<String> = Vec::new();
        let mut last_listed = None;
        while let Some(found) = listed.try_next().await? {
            let Some(tag) = tag_of(&prefix, &found.key) else { continue };
            if tag.as_str() > after {
                tags.push(tag.as_str().to_owned());
            }
            if tags.len() > limit {
                last_listed = Some(tag.as_str().to_owned());
                break;
            }
        }
        if let Some(last) = last_listed {
            let unlisted: Vec<Tag> = beginnings(&last)
                .filter(|tag| *tag > after && !tags.iter().any(|listed| listed == tag))
                .filter_map(|tag| tag.parse().ok())
                .collect();
            let attempted = attempted.as_str();
            let mut asked = stream::iter(unlisted)
                .map(|tag| async move {
                    let found = self.read_link(attempted, &repository.at(layout::tag_link(&tag))).await;
                    found.map(|found| found.map(|_| tag))
                })
                .buffer_unordered(AT_ONCE);
            while let Some(found) = asked.try_next().await? {
                tags.extend(found.map(|tag| tag.as_str().to_owned()));
            }
        }
        let is_there = !tags.is_empty()
            || self.bucket.list(attempted.clone(), &prefix, None).try_next().await?.is_some()
            || self.has_something(&attempted, repository).await?;
        if !is_there {
            return Err(SourceError::new(SourceErrorKind::NotFound, attempted));
        }
        tags.sort_unstable();
        let more = tags.len() > limit;
        tags.truncate(limit);
        Ok(TagList { tags, more })
    }
}

/// Returns the tag whose current link is at a key.
pub(super) fn tag_of(prefix: &str, key: &str) -> Option<Tag> {
    let (tag, rest) = key.strip_prefix(prefix)?.strip_prefix('/')?.split_once('/')?;
    if rest == layout::CURRENT { tag.parse().ok() } else { None }
}

/// Returns the prefixes of a tag that keys list after it.
fn beginnings(tag: &str) -> impl Iterator<Item = &str> {
    tag.match_indices(['-', '.']).filter_map(|(at, _)| tag.get(..at))
}

fn is_in_tags(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')
}
