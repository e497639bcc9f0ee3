//! Deletes: tags, manifests, links to blobs, and unreferenced or damaged bytes.
//!
//! Invariant: a delete is visible as a whole or not at all, except for a manifest with several tags: a crash in the
//! middle of that delete, which was not acknowledged, leaves the manifest with some of its tags.

use std::{cmp::Reverse, fs, io, os::unix::fs::MetadataExt as _};

use kuik_core::{
    content::{Digest, TagOrDigest},
    reference::Tag,
};
use tokio::sync::RwLockWriteGuard;

use super::{
    Shared,
    layout::RepositoryDir,
    links::{read_link, require_link},
    publish::{self, Durability, absent_is},
    walk,
};

/// Number of damaged blobs kept for inspection.
const SPECIMENS: usize = 16;

impl Shared {
    /// Removes a tag with its history.
    pub(super) fn delete_tag(
        &self,
        repository: &RepositoryDir,
        tag: &Tag,
        durability: Durability,
    ) -> io::Result<()> {
        read_link(&repository.tag_link(tag))?.ok_or(io::ErrorKind::NotFound)?;
        // A directory is not removed atomically, but it is moved away atomically.
        let aside = publish::unused_name(&self.layout.unpublished());
        fs::rename(repository.tag(tag), &aside)?;
        if durability == Durability::Acknowledged {
            publish::sync_dir(&repository.tags())?;
        }
        // If this fails, the next start does it.
        let _ = fs::remove_dir_all(&aside);
        Ok(())
    }

    /// Removes a manifest, after the tags that point at it. It reads every tag of the repository, and excludes
    /// writers for no longer than that. Takes the repository's lock itself.
    pub(super) fn delete_manifest(
        &self,
        repository: &RepositoryDir,
        digest: &Digest,
        durability: Durability,
    ) -> io::Result<()> {
        let lock = self.locks.of(repository);
        let link = repository.revision_link(digest);
        require_link(&link, digest)?;
        // Removing many tags takes long: the lock is released in between.
        self.delete_tags_on(repository, digest, || Some(lock.blocking_write()))?;

        // The few new ones, and the manifest, under one lock.
        let _guard = lock.blocking_write();
        require_link(&link, digest)?;
        let manifest = self.manifest(repository, &TagOrDigest::Digest(digest.clone()));
        self.delete_tags_on(repository, digest, || None)?;
        if durability == Durability::Acknowledged {
            publish::sync_dir(&repository.tags()).or_else(|error| absent_is((), error))?;
        }
        publish::remove_file(&link, &repository.revisions(), durability)?;
        // A link left over because the manifest is damaged is harmless: lists show only readable manifests.
        if let Some(subject) = manifest.ok().and_then(|manifest| manifest.subject()) {
            let link = repository.referrer_link(&subject, digest);
            publish::remove_file(&link, &repository.referrers(), Durability::Refetchable)?;
        }
        Ok(())
    }

    /// Removes the tags that point at a manifest, one by one under what `guard` takes. They are not synced.
    fn delete_tags_on<'a>(
        &self,
        repository: &RepositoryDir,
        digest: &Digest,
        guard: impl Fn() -> Option<RwLockWriteGuard<'a, ()>>,
    ) -> io::Result<()> {
        for tag in walk::tags(repository) {
            let (tag, target) = tag?;
            if target == *digest {
                let _guard = guard();
                if read_link(&repository.tag_link(&tag))?.as_ref() == Some(digest) {
                    self.delete_tag(repository, &tag, Durability::Refetchable)?;
                }
            }
        }
        Ok(())
    }

    /// Removes a blob from a repository.
    pub(super) fn unlink_blob(
        &self,
        repository: &RepositoryDir,
        digest: &Digest,
        durability: Durability,
    ) -> io::Result<()> {
        let link = repository.layer_link(digest);
        require_link(&link, digest)?;
        match publish::remove_file(&link, &repository.layers(), durability)? {
            true => Ok(()),
            false => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Removes bytes.
    pub(super) fn remove_blob(&self, digest: &Digest, durability: Durability) -> io::Result<()> {
        publish::remove_file(&self.layout.blob(digest), &self.layout.blobs(), durability).map(drop)
    }

    /// Moves bytes out of the layout; the oldest quarantined ones make room.
    pub(super) fn quarantine_blob(&self, digest: &Digest, durability: Durability) -> io::Result<()> {
        let (blob, aside) = (self.layout.blob(digest), self.layout.quarantined(digest));
        publish::move_file(&blob, &aside, &self.layout.blobs(), durability)?;
        let mut specimens = Vec::new();
        for entry in fs::read_dir(self.layout.quarantine())? {
            let entry = entry?;
            let Ok(metadata) = entry.metadata() else { continue };
            // The time of the move: that of the last write is part of the evidence.
            specimens.push((Reverse((metadata.ctime(), metadata.ctime_nsec())), entry.path()));
        }
        specimens.sort_unstable();
        specimens
            .iter()
            .skip(SPECIMENS)
            .try_for_each(|(_, path)| fs::remove_file(path).or_else(|error| absent_is((), error)))
    }
}
