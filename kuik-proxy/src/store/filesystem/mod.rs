//! Content in a directory.
//!
//! Reads check the repository's link before the bytes, as Docker's registry does: a blob that one repository has
//! is not readable through another. A link that is empty or damaged (a crash of the machine) counts as absent.

mod layout;
mod lock;
mod map;
mod publish;
mod writer;

use std::{
    fs::{self, File},
    io,
    path::Path,
    sync::Arc,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use kuik_core::{
    content::{
        Blob, BlobWriter, ByteRange, ContentSource, ContentStore, Descriptor, Digest, Freshness,
        MAX_MANIFEST_BYTES, Manifest, Referrers, Served, SourceError, SourceErrorKind, TagList, TagOrDigest,
        TagPage,
    },
    reference::{RepositoryName, Tag},
};

use self::{layout::Layout, lock::DirLock, publish::Durability, writer::FileWriter};
pub use lock::OpenError;

/// A [`ContentStore`] in a directory, in the layout of Docker's registry. Cheap to clone.
///
/// What it has acknowledged survives a crash of the machine; see [`FilesystemStore::as_cache`] for what need not.
/// Disk work runs on tokio's blocking pool.
#[derive(Debug, Clone)]
pub struct FilesystemStore {
    shared: Arc<Shared>,
    durability: Durability,
}

#[derive(Debug)]
struct Shared {
    layout: Layout,
    _lock: DirLock,
}

impl FilesystemStore {
    /// Opens `data_dir`, creates it where it is missing, and removes what an earlier process left unfinished.
    ///
    /// Blocks on the disk.
    ///
    /// # Errors
    /// Where another process has the directory open, or it cannot be written.
    pub fn open(data_dir: &Path) -> Result<Self, OpenError> {
        let layout = Layout::new(data_dir);
        let failed = |attempted| move |source| OpenError::Io { path: data_dir.to_owned(), attempted, source };
        let unpublished = layout.unpublished();
        publish::create_dir(&unpublished, Durability::Acknowledged).map_err(failed("create it"))?;
        let lock = DirLock::acquire(data_dir, &layout.lock())?;
        remove_files(&unpublished).map_err(failed("remove the unfinished files of an earlier run"))?;
        Ok(Self { shared: Arc::new(Shared { layout, _lock: lock }), durability: Durability::Acknowledged })
    }

    /// The same store for content that can be fetched again: a crash of the machine may lose what was kept last,
    /// and pulls do not wait for one another's disk writes. Nothing torn is visible either way.
    #[must_use]
    pub fn as_cache(&self) -> Self {
        Self { shared: self.shared.clone(), durability: Durability::Refetchable }
    }

    /// Runs `work` on the blocking pool; `attempted` says what it is for.
    async fn disk<T: Send + 'static>(
        &self,
        attempted: impl Into<String>,
        work: impl FnOnce(&Shared) -> io::Result<T> + Send + 'static,
    ) -> Result<T, SourceError> {
        let shared = self.shared.clone();
        blocking(attempted, move || work(&shared)).await
    }

    /// The bytes of a blob, where `link` says that its repository has it.
    async fn open_linked(
        &self,
        attempted: String,
        link: std::path::PathBuf,
        digest: &Digest,
    ) -> Result<(File, u64), SourceError> {
        let digest = digest.clone();
        self.disk(attempted, move |shared| {
            shared.read_link(&link)?.filter(|linked| *linked == digest).ok_or(io::ErrorKind::NotFound)?;
            let file = File::open(shared.layout.blob(&digest))?;
            let size = file.metadata()?.len();
            Ok((file, size))
        })
        .await
    }
}

impl Shared {
    fn write_link(&self, link: &Path, digest: &Digest, durability: Durability) -> io::Result<()> {
        if self.read_link(link)?.is_some_and(|linked| linked == *digest) {
            return Ok(());
        }
        publish::write_file(&self.layout.unpublished(), link, digest.as_str().as_bytes(), durability)
    }

    fn read_link(&self, link: &Path) -> io::Result<Option<Digest>> {
        match fs::read_to_string(link) {
            Ok(text) => Ok(text.trim().parse().ok()),
            Err(error) if is_absent(&error) || error.kind() == io::ErrorKind::InvalidData => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl ContentSource for FilesystemStore {
    async fn resolve(
        &self,
        repository: &RepositoryName,
        at: &TagOrDigest,
        freshness: Freshness,
    ) -> Result<Served<Descriptor>, SourceError> {
        Ok(self.manifest(repository, at, freshness).await?.map(|manifest| manifest.descriptor()))
    }

    async fn manifest(
        &self,
        repository: &RepositoryName,
        at: &TagOrDigest,
        _freshness: Freshness,
    ) -> Result<Served<Manifest>, SourceError> {
        let attempted = format!("read manifest {at} of {repository} from the store");
        let digest = match at {
            TagOrDigest::Digest(digest) => digest.clone(),
            TagOrDigest::Tag(tag) => {
                let link = self.shared.layout.tag_link(repository, tag)?;
                self.disk(attempted.clone(), move |shared| {
                    Ok(shared.read_link(&link)?.ok_or(io::ErrorKind::NotFound)?)
                })
                .await?
            }
        };
        let link = self.shared.layout.revision_link(repository, &digest)?;
        let (file, size) = self.open_linked(attempted.clone(), link, &digest).await?;
        if size > MAX_MANIFEST_BYTES as u64 {
            return Err(damaged(&attempted, format!("it has {size} bytes, too many for a manifest")));
        }
        let bytes = blocking(attempted.clone(), move || map::window(&file, 0, size)).await?;
        // Copied out of the page cache where it was mapped: manifests are kept in memory for long.
        let manifest = Manifest::new(None, Bytes::copy_from_slice(&bytes))
            .map_err(|error| damaged(&attempted, error))?
            .verified_as(&digest)
            .map_err(|error| damaged(&attempted, error))?;
        Ok(Served::from_cache(manifest))
    }

    async fn blob_size(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Served<u64>, SourceError> {
        let attempted = format!("find blob {digest} of {repository} in the store");
        let link = self.shared.layout.layer_link(repository, digest)?;
        let (_, size) = self.open_linked(attempted, link, digest).await?;
        Ok(Served::from_cache(size))
    }

    async fn blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        range: ByteRange,
    ) -> Result<Served<Blob>, SourceError> {
        let attempted = format!("read blob {digest} of {repository} from the store");
        let link = self.shared.layout.layer_link(repository, digest)?;
        let (file, size) = self.open_linked(attempted.clone(), link, digest).await?;
        let bytes = range.resolve(size).map_err(|error| {
            SourceError::caused_by(SourceErrorKind::RangeNotSatisfiable, attempted.clone(), error)
        })?;
        let blob = Blob {
            size: Some(size),
            range: (range != ByteRange::Full).then(|| bytes.clone()),
            body: windows(Arc::new(file), bytes, attempted).boxed(),
        };
        Ok(Served::from_cache(blob))
    }

    async fn tags(&self, repository: &RepositoryName, page: &TagPage) -> Result<TagList, SourceError> {
        let dir = self.shared.layout.tags(repository)?;
        let TagPage { limit, after } = page.clone();
        self.disk(format!("list the tags of {repository} in the store"), move |_| {
            let mut tags = Vec::new();
            for entry in fs::read_dir(dir)? {
                let name = entry?.file_name();
                let name = name.to_string_lossy();
                if after.as_deref().is_none_or(|after| *name > *after) {
                    tags.push(name.into_owned());
                }
            }
            tags.sort_unstable();
            let limit = limit.unwrap_or(usize::MAX);
            let more = tags.len() > limit;
            tags.truncate(limit);
            Ok(TagList { tags, more })
        })
        .await
    }

    async fn referrers(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        _artifact_type: Option<&str>,
    ) -> Result<Referrers, SourceError> {
        Err(SourceError::new(
            SourceErrorKind::Unsupported,
            format!("list the referrers of {digest} in {repository}: the store keeps no list of them"),
        ))
    }
}

#[async_trait]
impl ContentStore for FilesystemStore {
    async fn write_blob(&self) -> Result<Box<dyn BlobWriter>, SourceError> {
        let (shared, durability) = (self.shared.clone(), self.durability);
        let create = move || FileWriter::create(shared, durability);
        Ok(Box::new(blocking("start a new blob in the store", create).await?))
    }

    async fn link_blob(&self, repository: &RepositoryName, digest: &Digest) -> Result<(), SourceError> {
        let link = self.shared.layout.layer_link(repository, digest)?;
        let (digest, durability) = (digest.clone(), self.durability);
        self.disk(format!("link blob {digest} into {repository}"), move |shared| {
            fs::metadata(shared.layout.blob(&digest))?;
            shared.write_link(&link, &digest, durability)
        })
        .await
    }

    async fn has_blob(&self, digest: &Digest) -> Result<Option<u64>, SourceError> {
        let path = self.shared.layout.blob(digest);
        self.disk(format!("find blob {digest} in the store"), move |_| match fs::metadata(path) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        })
        .await
    }

    async fn put_manifest(
        &self,
        repository: &RepositoryName,
        manifest: &Manifest,
        tag: Option<&Tag>,
    ) -> Result<(), SourceError> {
        let layout = &self.shared.layout;
        let digest = manifest.digest().clone();
        // The order matters: whoever sees a link finds what it points at.
        let mut links = vec![layout.revision_link(repository, &digest)?];
        if let Some(tag) = tag {
            links.push(layout.tag_history_link(repository, tag, &digest)?);
            links.push(layout.tag_link(repository, tag)?);
        }
        let (bytes, durability) = (manifest.bytes().clone(), self.durability);
        self.disk(format!("keep manifest {digest} of {repository}"), move |shared| {
            let blob = shared.layout.blob(&digest);
            // Compared, not only looked for: a damaged one is mended by writing it again.
            if !fs::read(&blob).is_ok_and(|kept| kept == bytes) {
                publish::write_file(&shared.layout.unpublished(), &blob, &bytes, durability)?;
            }
            links.iter().try_for_each(|link| shared.write_link(link, &digest, durability))
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

/// The bytes of a file, window by window; the next window is mapped while the last one is being sent.
fn windows(
    file: Arc<File>,
    bytes: std::ops::Range<u64>,
    attempted: String,
) -> impl futures::Stream<Item = Result<Bytes, SourceError>> {
    let step = usize::try_from(map::WINDOW).unwrap_or(usize::MAX);
    stream::iter(bytes.clone().step_by(step))
        .map(move |start| {
            let (file, end, attempted) = (file.clone(), bytes.end, attempted.clone());
            blocking(attempted, move || map::window(&file, start, end))
        })
        .buffered(2)
}

/// Runs blocking disk work on tokio's pool, and says what was attempted where it fails.
async fn blocking<T: Send + 'static>(
    attempted: impl Into<String>,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, SourceError> {
    let attempted = attempted.into();
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) if is_absent(&error) => Err(SourceError::new(SourceErrorKind::NotFound, attempted)),
        Ok(Err(error)) => Err(SourceError::storage(attempted, error)),
        Err(panicked) => Err(SourceError::storage(attempted, io::Error::other(panicked))),
    }
}

/// Whether an error means that there is nothing under a path.
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn damaged(attempted: &str, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> SourceError {
    // What the store holds under a digest is not that content: the caller's remedy is to fetch it again, exactly as
    // if it were absent.
    SourceError::caused_by(SourceErrorKind::NotFound, format!("{attempted}: it is damaged"), cause)
}

fn remove_files(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        fs::remove_file(entry?.path())?;
    }
    Ok(())
}
