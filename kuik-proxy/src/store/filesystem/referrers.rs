//! Referrers index, outside the layout of Docker's registry.
//!
//! Invariant: the index may have extra entries but never misses one: a manifest gets its referrer link before it is
//! visible, and every entry is checked against the manifest when it is listed. Manifests written by other programs
//! have no such links. So the first query for a repository in each process reads the manifests added since the index
//! was last complete (`_complete`).

use std::{
    collections::{BTreeSet, HashSet},
    fs, io,
    os::unix::fs::MetadataExt as _,
    sync::Arc,
};

use kuik_core::content::{
    DecodedManifest, Descriptor, Digest, Manifest, SourceError, TagOrDigest, fallback_tag,
};
use tokio::sync::Mutex;

use super::{
    FilesystemStore, Shared, blocking,
    layout::RepositoryDir,
    links::stripe,
    publish::{self, Durability, absent_is, is_absent},
    walk,
};

/// Number of locks that all repositories share while their indexes are completed.
const STRIPES: usize = 16;

/// Tolerance in seconds for the file system's clock, and for writes that become visible late.
const SLACK_SECONDS: i64 = 60;

/// Repositories whose index this process found or made complete. From then on it stays complete.
#[derive(Debug)]
pub(super) struct Indexed([Arc<Mutex<HashSet<RepositoryDir>>>; STRIPES]);

impl Default for Indexed {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Arc::default()))
    }
}

impl FilesystemStore {
    /// Returns the descriptors of the referrers of `subject`.
    pub(super) async fn referrers_of(
        &self,
        attempted: String,
        repository: RepositoryDir,
        subject: Digest,
    ) -> Result<Vec<Descriptor>, SourceError> {
        let shared = self.shared.clone();
        let indexed = shared.indexed.0.get(stripe(&repository, STRIPES)).cloned().unwrap_or_default();
        // One task completes the index, the others wait for it.
        let mut indexed = indexed.lock_owned().await;
        blocking(attempted, move || {
            if !indexed.contains(&repository) {
                if !shared.complete_index(&repository)? {
                    return Ok(Vec::new());
                }
                indexed.insert(repository.clone());
            }
            drop(indexed);
            shared.list_referrers(&repository, &subject)
        })
        .await
    }
}

impl Shared {
    /// Writes missing referrer links for all manifests of the repository. Returns whether there is any manifest.
    fn complete_index(&self, repository: &RepositoryDir) -> io::Result<bool> {
        let marker = repository.referrers_marker();
        let complete_until = match fs::metadata(&marker) {
            Ok(marker) => Some(marker.ctime()),
            Err(error) => absent_is(None, error)?,
        };
        let mut found_any = false;
        for link in walk::links(repository.revisions()) {
            let (digest, path) = link?;
            found_any = true;
            // The time of the last inode change: unlike the modification time, no copying tool sets it back.
            let came = fs::symlink_metadata(path).map(|link| link.ctime());
            let is_known = |until: i64| came.is_ok_and(|came| came + SLACK_SECONDS < until);
            if complete_until.is_some_and(is_known) {
                continue;
            }
            if let Some(subject) = self.readable(repository, &digest)?.and_then(|manifest| manifest.subject())
            {
                self.write_link(
                    &repository.referrer_link(&subject, &digest),
                    &digest,
                    Durability::Acknowledged,
                )?;
            }
        }
        if found_any {
            // Without it, the next process reads all of them again.
            let _ = publish::write_file(&self.layout.unpublished(), &marker, b"", Durability::Acknowledged);
        }
        Ok(found_any)
    }

    fn list_referrers(&self, repository: &RepositoryDir, subject: &Digest) -> io::Result<Vec<Descriptor>> {
        let mut descriptors = Vec::new();
        let tagged = self.tagged_referrers(repository, subject)?;
        for link in walk::links(repository.referrers_of(subject)) {
            let (digest, _) = link?;
            let referrer = self.readable(repository, &digest)?.filter(|_| !tagged.contains(&digest));
            if let Some(referrer) = referrer.filter(|referrer| referrer.subject().as_ref() == Some(subject)) {
                descriptors.push(referrer.referrer_descriptor());
            }
        }
        for digest in tagged {
            descriptors.extend(self.readable(repository, &digest)?.map(|found| found.referrer_descriptor()));
        }
        Ok(descriptors)
    }

    /// Returns the referrers that a client listed under the fallback tag. Their subject is not checked.
    fn tagged_referrers(&self, repository: &RepositoryDir, subject: &Digest) -> io::Result<BTreeSet<Digest>> {
        let Some(tag) = fallback_tag(subject) else { return Ok(BTreeSet::new()) };
        let tagged = match self.manifest(repository, &TagOrDigest::Tag(tag)) {
            Ok(manifest) => manifest.decode().ok(),
            Err(error) => absent_is(None, error)?,
        };
        Ok(match tagged {
            Some(DecodedManifest::Index(index)) => {
                index.manifests.into_iter().map(|entry| entry.digest).collect()
            }
            _ => BTreeSet::new(),
        })
    }

    /// Returns a manifest of the repository; `None` if it is absent or damaged.
    fn readable(&self, repository: &RepositoryDir, digest: &Digest) -> io::Result<Option<Manifest>> {
        match self.manifest(repository, &TagOrDigest::Digest(digest.clone())) {
            Ok(manifest) => Ok(Some(manifest)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
