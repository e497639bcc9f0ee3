//! Removal announcements of the processes on one bucket: an object below `.kuik/removing` for each announcement, with
//! a digest a line.
//!
//! A provider lists all earlier writes, so that a list after an announcement shows it.

use std::io;

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt as _;
use kuik_core::content::{Digest, SourceError};

use super::ObjectStorage;
use crate::maintenance::gc::RemovalIntents;

/// Key prefix of announcements.
const REMOVING: &str = ".kuik/removing";

/// Maximum size of an announcement in bytes: 5,000 of the longest digests fit.
const MAX_BYTES: u64 = 1 << 20;

#[async_trait]
impl RemovalIntents for ObjectStorage {
    async fn announce(&self, digests: &[Digest]) -> Result<String, SourceError> {
        let attempted = format!("announce the removal of {} digests", digests.len());
        let mut random = [0; 16];
        getrandom::fill(&mut random)
            .map_err(|error| SourceError::storage(attempted.clone(), io::Error::other(error.to_string())))?;
        let name = format!("{:032x}", u128::from_be_bytes(random));
        let lines: Vec<&str> = digests.iter().map(Digest::as_str).collect();
        self.shared.bucket.put(&attempted, &key(&name), Bytes::from(lines.join("\n"))).await?;
        Ok(name)
    }

    async fn announced(&self) -> Result<Vec<String>, SourceError> {
        let listed = self.shared.bucket.list("list removal announcements".to_owned(), REMOVING, None);
        let named = |key: &str| key.strip_prefix(REMOVING)?.strip_prefix('/').map(str::to_owned);
        listed.try_filter_map(|found| std::future::ready(Ok(named(&found.key)))).try_collect().await
    }

    async fn digests(&self, name: &str) -> Result<Option<Vec<Digest>>, SourceError> {
        let text = self.shared.bucket.read("read a removal announcement", &key(name), MAX_BYTES).await?;
        let digests = |text: Bytes| {
            let text = String::from_utf8_lossy(&text).into_owned();
            text.lines().filter_map(|line| line.parse().ok()).collect()
        };
        Ok(text.map(digests))
    }

    async fn withdraw(&self, name: &str) -> Result<(), SourceError> {
        self.shared.bucket.delete("withdraw a removal announcement", &key(name)).await
    }
}

fn key(name: &str) -> String {
    format!("{REMOVING}/{name}")
}
