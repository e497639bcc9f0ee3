//! Walks over stored content in bounded memory: one open directory for each level, and one batch of entries. A walk
//! holds no thread while its caller processes a batch.
//!
//! Files outside the layout are skipped: volumes have a `lost+found`, and users leave files.

use std::{
    fs::{self, ReadDir},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

use futures::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};
use kuik_core::{
    content::{Digest, SourceError, StoredBlob, UploadId},
    reference::{RepositoryName, Tag},
};

use super::{
    blocking,
    layout::{MetadataDir, RepositoryDir, UploadDir},
    links::read_link,
    publish::absent_is,
};

/// Iterator over entries. It touches the disk only when the next entry is requested.
pub(super) type Walk<T> = Box<dyn Iterator<Item = io::Result<T>> + Send>;

/// Number of entries found in one run on the blocking pool.
const BATCH: usize = 256;

/// Returns a walk as a stream.
pub(super) fn stream<T: Send + 'static>(
    attempted: String,
    walk: Walk<T>,
) -> BoxStream<'static, Result<T, SourceError>> {
    let next_batch = move |mut walk: Walk<T>| {
        let attempted = attempted.clone();
        async move {
            let find = move || {
                let batch = walk.by_ref().take(BATCH).collect::<io::Result<Vec<_>>>()?;
                Ok((batch, walk))
            };
            let (batch, walk) = blocking(attempted, find).await?;
            let batch = (!batch.is_empty()).then(|| stream::iter(batch.into_iter().map(Ok)));
            Ok::<_, SourceError>(batch.map(|batch| (batch, walk)))
        }
    };
    stream::try_unfold(walk, next_batch).try_flatten().boxed()
}

/// Returns every tag of a repository that has a target, with the target.
pub(super) fn tags(repository: &RepositoryDir) -> Walk<(Tag, Digest)> {
    let repository = repository.clone();
    Box::new(
        children(repository.tags())
            .filter_map(move |child| child.and_then(|(name, _)| pointed_at(&repository, &name)).transpose()),
    )
}

fn pointed_at(repository: &RepositoryDir, name: &str) -> io::Result<Option<(Tag, Digest)>> {
    let Ok(tag) = name.parse::<Tag>() else { return Ok(None) };
    Ok(read_link(&repository.tag_link(&tag))?.map(|digest| (tag, digest)))
}

/// Returns the digests with a link below `dir` (`ALGORITHM/HEX/link`), with the path of that link. A link whose
/// content does not match its path is ignored.
pub(super) fn links(dir: PathBuf) -> Walk<(Digest, PathBuf)> {
    each(children(dir), |(algorithm, path)| {
        Box::new(children(path).filter_map(move |child| {
            child.and_then(|(encoded, path)| linked(&algorithm, &encoded, path.join("link"))).transpose()
        }))
    })
}

fn linked(algorithm: &str, encoded: &str, link: PathBuf) -> io::Result<Option<(Digest, PathBuf)>> {
    let Ok(digest) = format!("{algorithm}:{encoded}").parse::<Digest>() else { return Ok(None) };
    Ok(read_link(&link)?.filter(|linked| *linked == digest).map(|digest| (digest, link)))
}

/// Returns every blob and manifest below `dir` (`ALGORITHM/FIRST TWO DIGITS/HEX/data`).
pub(super) fn blobs(dir: PathBuf) -> Walk<StoredBlob> {
    each(children(dir), |(algorithm, path)| {
        each(children(path), move |(shard, path)| {
            let algorithm = algorithm.clone();
            Box::new(children(path).filter_map(move |child| {
                child.and_then(|(encoded, path)| stored(&algorithm, &shard, &encoded, &path)).transpose()
            }))
        })
    })
}

fn stored(algorithm: &str, shard: &str, encoded: &str, path: &Path) -> io::Result<Option<StoredBlob>> {
    let digest = format!("{algorithm}:{encoded}").parse::<Digest>();
    let Some(digest) = digest.ok().filter(|_| encoded.starts_with(shard)) else { return Ok(None) };
    match fs::metadata(path.join("data")) {
        Ok(data) if data.is_file() => {
            let modified = data.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            Ok(Some(StoredBlob { digest, size: data.len(), modified }))
        }
        Ok(_) => Ok(None),
        Err(error) => absent_is(None, error),
    }
}

/// Returns the uploads of a repository.
pub(super) fn uploads(repository: &RepositoryDir) -> Walk<UploadDir> {
    Box::new(children(repository.uploads()).filter_map(|child| {
        let named =
            |(name, path): (String, PathBuf)| name.parse::<UploadId>().ok().map(|_| UploadDir::at(path));
        child.map(named).transpose()
    }))
}

/// Returns every repository below `root` that has content.
pub(super) fn repositories(root: PathBuf) -> Walk<(RepositoryName, RepositoryDir)> {
    Box::new(Repositories::below(root, |path| {
        let dir = RepositoryDir::at(path);
        Ok(has_something(&dir)?.then_some(dir))
    }))
}

/// Returns every repository with a metadata directory below `root`.
pub(super) fn noted_repositories(root: PathBuf) -> Walk<(RepositoryName, MetadataDir)> {
    Box::new(Repositories::below(root, |path| {
        let dir = MetadataDir::below(&path);
        Ok(dir.path().is_dir().then_some(dir))
    }))
}

/// Descends into every directory that may be part of a repository's name. The length of names bounds the depth.
struct Repositories<T> {
    open: Vec<Level>,
    /// Returns an entry for the directory of a repository, if it has content.
    found: fn(PathBuf) -> io::Result<Option<T>>,
}

struct Level {
    name: String,
    path: PathBuf,
    children: Walk<(String, PathBuf)>,
}

impl<T> Iterator for Repositories<T> {
    type Item = io::Result<(RepositoryName, T)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let level = self.open.last_mut()?;
            let Some(child) = level.children.next() else {
                self.open.pop();
                continue;
            };
            match child.and_then(|(part, path)| self.enter(&part, path)) {
                Ok(None) => {}
                Ok(Some(found)) => return Some(Ok(found)),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

impl<T> Repositories<T> {
    fn below(root: PathBuf, found: fn(PathBuf) -> io::Result<Option<T>>) -> Self {
        let level = Level { name: String::new(), children: children(root.clone()), path: root };
        Self { open: vec![level], found }
    }

    fn enter(&mut self, part: &str, path: PathBuf) -> io::Result<Option<(RepositoryName, T)>> {
        let above = self.open.last().map_or("", |level| &level.name);
        let slash = if above.is_empty() { "" } else { "/" };
        let full = format!("{above}{slash}{part}");
        let Ok(name) = RepositoryName::local(&full) else { return Ok(None) };
        if !path.is_dir() || self.leads_back(&path)? {
            return Ok(None);
        }
        self.open.push(Level { name: full, children: children(path.clone()), path: path.clone() });
        Ok((self.found)(path)?.map(|found| (name, found)))
    }

    /// Returns whether `path` is a symbolic link to one of its own parent directories. (Other links are followed,
    /// because reads follow them too, and readable content must not be missed.)
    fn leads_back(&self, path: &Path) -> io::Result<bool> {
        if !path.is_symlink() {
            return Ok(false);
        }
        let identity = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino()));
        let target = identity(path)?;
        for level in &self.open {
            if identity(&level.path)? == target {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Returns whether a repository has a manifest, a blob or an upload.
pub(super) fn has_something(repository: &RepositoryDir) -> io::Result<bool> {
    let manifests = links(repository.revisions()).map(|found| found.map(drop));
    let blobs = links(repository.layers()).map(|found| found.map(drop));
    let uploads = uploads(repository).map(|found| found.map(drop));
    manifests.chain(blobs).chain(uploads).next().transpose().map(|found| found.is_some())
}

/// Returns the entries of a directory with their paths; none if it does not exist. Names that are not UTF-8 are
/// skipped.
pub(super) fn children(dir: PathBuf) -> Walk<(String, PathBuf)> {
    Box::new(Children::Unopened(dir).filter_map(|entry| {
        let named = |entry: fs::DirEntry| Some((entry.file_name().into_string().ok()?, entry.path()));
        entry.map(named).transpose()
    }))
}

/// A directory that is opened when its first entry is requested, and closed after its last.
enum Children {
    Unopened(PathBuf),
    Open(ReadDir),
    Done,
}

impl Iterator for Children {
    type Item = io::Result<fs::DirEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Self::Unopened(dir) = self {
            match fs::read_dir(dir) {
                Ok(open) => *self = Self::Open(open),
                Err(error) => {
                    *self = Self::Done;
                    return absent_is((), error).err().map(Err);
                }
            }
        }
        let Self::Open(open) = self else { return None };
        let entry = open.next();
        if entry.is_none() {
            *self = Self::Done;
        }
        entry
    }
}

/// Returns the entries of `inner` for each entry of `outer`.
pub(super) fn each<T: 'static, U: Send + 'static>(
    outer: Walk<T>,
    inner: impl Fn(T) -> Walk<U> + Send + 'static,
) -> Walk<U> {
    Box::new(outer.flat_map(move |found| match found {
        Ok(found) => inner(found),
        Err(error) => Box::new(std::iter::once(Err(error))),
    }))
}
