//! Notes about repositories, beside the layout: Docker's registry never sees them.

use std::{fs, io};

use bytes::Bytes;
use kuik_core::{
    content::{MAX_NOTE_BYTES, NoteName},
    reference::RepositoryName,
};

use super::{
    Shared,
    layout::NotesDir,
    publish::{self, Durability, absent_is},
    walk::{self, Walk},
};

impl Shared {
    pub(super) fn note(&self, dir: &NotesDir, name: &NoteName) -> io::Result<Option<Bytes>> {
        match fs::read(dir.note(name)) {
            Ok(text) => Ok(Some(text.into())),
            Err(error) => absent_is(None, error),
        }
    }

    pub(super) fn put_note(
        &self,
        dir: &NotesDir,
        name: &NoteName,
        text: Option<&[u8]>,
        durability: Durability,
    ) -> io::Result<()> {
        let (unpublished, path) = (self.layout.unpublished(), dir.note(name));
        match text {
            Some(text) => publish::write_file(&unpublished, &path, text, durability),
            None => publish::remove_file(&path, &self.layout.notes(), durability).map(drop),
        }
    }

    /// Every note.
    pub(super) fn notes(&self) -> Walk<(RepositoryName, NoteName)> {
        let noted = walk::noted_repositories(self.layout.notes());
        walk::each(noted, |(repository, dir)| {
            Box::new(walk::children(dir.path()).filter_map(move |child| {
                let named = |(name, _): (String, _)| Some((repository.clone(), name.parse().ok()?));
                child.map(named).transpose()
            }))
        })
    }
}

/// Whether a note is larger than any is.
pub(super) fn is_too_large(text: &[u8]) -> bool {
    text.len() > MAX_NOTE_BYTES
}
