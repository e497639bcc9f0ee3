//! What goes: tags, manifests, links to blobs, and bytes that nothing refers to or that are damaged.
//!
//! Invariant: a delete is seen whole or not at all, but for a manifest with several tags: a crash in the middle of
//! that delete, which nobody was told had succeeded, leaves the manifest with some of its tags.

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

/// How many damaged blobs are kept to be looked at.
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
        // A directory is not removed in one step, but it is moved away in one.
        let aside = publish::unused_name(&self.layout.unpublished());
        fs::rename(repository.tag(tag), &aside)?;
        if durability == Durability::Acknowledged {
            publish::sync_dir(&repository.tags())?;
        }
        // Where this fails, the next start does it.
        let _ = fs::remove_dir_all(&aside);
        Ok(())
    }

    /// Removes a manifest, the tags that point at it first. It reads every tag of the repository, and keeps writers
    /// out for no longer than that. Takes the repository's lock itself.
    pub(super) fn delete_manifest(
        &self,
        repository: &RepositoryDir,
        digest: &Digest,
        durability: Durability,
    ) -> io::Result<()> {
        let lock = self.locks.of(repository);
        let link = repository.revision_link(digest);
        require_link(&link, digest)?;
        // Removing many tags takes long: writers come in between one and the next.
        self.delete_tags_on(repository, digest, || Some(lock.blocking_write()))?;

        // The few that came meanwhile, and the manifest: here nobody comes in between.
        let _guard = lock.blocking_write();
        require_link(&link, digest)?;
        let manifest = self.manifest(repository, &TagOrDigest::Digest(digest.clone()));
        self.delete_tags_on(repository, digest, || None)?;
        if durability == Durability::Acknowledged {
            publish::sync_dir(&repository.tags()).or_else(|error| absent_is((), error))?;
        }
        publish::remove_file(&link, &repository.revisions(), durability)?;
        // A link that stays behind because the manifest is damaged does no harm: lists show only what can be read.
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

    /// Moves bytes out of the layout; the specimens that have lain there for longest make room.
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
