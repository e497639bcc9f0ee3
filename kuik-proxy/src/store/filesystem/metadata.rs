//! Metadata of repositories, outside the layout: Docker's registry never sees it.

use std::{fs, io};

use bytes::Bytes;
use kuik_core::{
    content::{MAX_METADATA_BYTES, MetadataName},
    reference::RepositoryName,
};

use super::{
    Shared,
    layout::MetadataDir,
    publish::{self, Durability, absent_is},
    walk::{self, Walk},
};

impl Shared {
    pub(super) fn metadata(&self, dir: &MetadataDir, name: &MetadataName) -> io::Result<Option<Bytes>> {
        match fs::read(dir.metadata(name)) {
            Ok(text) => Ok(Some(text.into())),
            Err(error) => absent_is(None, error),
        }
    }

    pub(super) fn put_metadata(
        &self,
        dir: &MetadataDir,
        name: &MetadataName,
        text: Option<&[u8]>,
        durability: Durability,
    ) -> io::Result<()> {
        let (unpublished, path) = (self.layout.unpublished(), dir.metadata(name));
        match text {
            Some(text) => publish::write_file(&unpublished, &path, text, durability),
            None => publish::remove_file(&path, &self.layout.all_metadata(), durability).map(drop),
        }
    }

    /// Returns every metadata entry.
    pub(super) fn all_metadata(&self) -> Walk<(RepositoryName, MetadataName)> {
        let noted = walk::noted_repositories(self.layout.all_metadata());
        walk::each(noted, |(repository, dir)| {
            Box::new(walk::children(dir.path()).filter_map(move |child| {
                let named = |(name, _): (String, _)| Some((repository.clone(), name.parse().ok()?));
                child.map(named).transpose()
            }))
        })
    }
}

/// Returns whether an entry exceeds the size limit.
pub(super) fn is_too_large(text: &[u8]) -> bool {
    text.len() > MAX_METADATA_BYTES
}
