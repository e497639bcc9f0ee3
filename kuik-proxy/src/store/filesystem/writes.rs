//! Writes: blobs, links to them, manifests and tags.

use std::{fs, io, ops::Range};

use async_trait::async_trait;
use bytes::Bytes;
use kuik_core::{
    content::{BlobWriter, ContentStore, Digest, Manifest, SourceError},
    reference::{RepositoryName, Tag},
};

use super::{
    FilesystemStore, Shared, blocking,
    layout::RepositoryDir,
    publish::{self, Durability, absent_is},
    writer::FileWriter,
};
use crate::store::map;

#[async_trait]
impl ContentStore for FilesystemStore {
    async fn write_blob(&self) -> Result<Box<dyn BlobWriter>, SourceError> {
        let (shared, durability) = (self.shared.clone(), self.durability);
        let create = move || FileWriter::create(shared, durability);
        Ok(Box::new(blocking("start a new blob in the store", create).await?))
    }

    async fn link_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<(), SourceError> {
        let link = self.shared.layout.repository(repository)?.layer_link(digest);
        let (digest, durability) = (digest.clone(), self.durability);
        self.disk(format!("link blob {digest} into {repository}"), move |shared| {
            shared.renew(&digest, durability)?;
            shared.write_link(&link, &digest, durability)
        })
        .await
    }

    async fn has_blob(&self, digest: &Digest) -> Result<Option<u64>, SourceError> {
        let path = self.shared.layout.blob(digest);
        self.disk(format!("find blob {digest} in the store"), move |_| match fs::metadata(path) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) => absent_is(None, error),
        })
        .await
    }

    async fn read_stored(&self, digest: &Digest, bytes: Range<u64>) -> Result<Bytes, SourceError> {
        let path = self.shared.layout.blob(digest);
        self.disk(format!("read blob {digest} in the store"), move |_| {
            map::window(&fs::File::open(path)?, bytes.start, bytes.end)
        })
        .await
    }

    async fn put_manifest(
        &self,
        repository: &RepositoryName,
        manifest: &Manifest,
        tag: Option<&Tag>,
    ) -> Result<(), SourceError> {
        let dir = self.shared.layout.repository(repository)?;
        let attempted = format!("store manifest {} of {repository}", manifest.digest());
        let (manifest, tag, durability) = (manifest.clone(), tag.cloned(), self.durability);
        let guard = self.shared.locks.of(&dir).read_owned().await;
        self.disk(attempted, move |shared| {
            let _guard = guard;
            shared.put_manifest(&dir, &manifest, tag.as_ref(), durability)
        })
        .await
    }

    async fn check_writable(&self) -> Result<(), SourceError> {
        let dir = self.shared.layout.data_dir().display().to_string();
        self.disk(format!("write to the data directory {dir}"), |shared| {
            let probe = publish::Unpublished::create(&shared.layout.unpublished())?;
            io::Write::write_all(&mut probe.file(), b"probe")
        })
        .await
    }
}

impl Shared {
    fn put_manifest(
        &self,
        repository: &RepositoryDir,
        manifest: &Manifest,
        tag: Option<&Tag>,
        durability: Durability,
    ) -> io::Result<()> {
        let digest = manifest.digest();
        let blob = self.layout.blob(digest);
        // Compared, not only checked for existence: writing it again repairs a damaged one.
        if fs::read(&blob).is_ok_and(|kept| kept == *manifest.bytes()) {
            self.renew(digest, durability)?;
        } else {
            publish::write_file(&self.layout.unpublished(), &blob, manifest.bytes(), durability)?;
        }
        // The order matters: a reader that sees a link finds its target, and no referrer is visible without its index
        // entry.
        if let Some(subject) = manifest.subject() {
            self.write_link(&repository.referrer_link(&subject, digest), digest, durability)?;
        }
        self.write_link(&repository.revision_link(digest), digest, durability)?;
        if let Some(tag) = tag {
            self.write_link(&repository.tag_history_link(tag, digest), digest, durability)?;
            self.write_link(&repository.tag_link(tag), digest, durability)?;
        }
        Ok(())
    }
}
