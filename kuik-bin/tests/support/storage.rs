//! Storage of a registry, for tests that run on all kinds: registries are started on it, and it is opened directly and
//! searched for leftovers after they have ended.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use kuik_core::content::RegistryStore;
use kuik_proxy::store::{BucketOptions, FilesystemStore, ObjectStorage, Provider};
use kuik_testkit::real::{Bucket, S3Server};
use tempfile::TempDir;

use super::Kuik;

/// Content, gone with this.
#[derive(Debug)]
pub(crate) enum Storage {
    Directory(TempDir),
    Bucket { server: Box<S3Server>, bucket: Box<Bucket> },
}

impl Storage {
    pub(crate) fn directory() -> Self {
        Self::Directory(tempfile::tempdir().unwrap())
    }

    pub(crate) async fn bucket() -> Self {
        let server = Box::new(S3Server::start().await.unwrap());
        let bucket = Box::new(server.bucket("registry/root"));
        Self::Bucket { server, bucket }
    }

    /// A registry that keeps its content here.
    pub(crate) async fn registry(&self, arguments: &[&str]) -> Kuik {
        match self {
            Self::Directory(dir) => Kuik::registry(dir.path(), arguments).await,
            Self::Bucket { bucket, .. } => {
                let storage = format!("s3://{}/{}", bucket.name(), bucket.prefix());
                let mut all = vec!["--storage-endpoint", bucket.endpoint(), "--storage-allow-http"];
                all.extend(arguments);
                let environment = [
                    ("AWS_ACCESS_KEY_ID", bucket.access_key()),
                    ("AWS_SECRET_ACCESS_KEY", bucket.secret_key()),
                ];
                Kuik::registry_in(&storage, &all, &environment).await
            }
        }
    }

    /// The content itself. No registry may have it open.
    pub(crate) fn open(&self) -> Arc<dyn RegistryStore> {
        match self {
            Self::Directory(dir) => Arc::new(FilesystemStore::open(dir.path()).unwrap()),
            Self::Bucket { bucket, .. } => {
                let mut options = BucketOptions::new(Provider::S3, bucket.name());
                options.prefix = bucket.prefix().to_owned();
                options.endpoint = Some(bucket.endpoint().to_owned());
                options.region = Some(bucket.region().to_owned());
                options.access_key = Some((bucket.access_key().to_owned(), bucket.secret_key().to_owned()));
                Arc::new(ObjectStorage::open(&options, &std::env::temp_dir()).unwrap())
            }
        }
    }

    /// Entries that are not content: uploads, files being written, and incomplete multipart objects.
    pub(crate) fn unfinished(&self) -> Vec<PathBuf> {
        let (root, folders) = match self {
            Self::Directory(dir) => (dir.path().to_owned(), ["_uploads", "unpublished"]),
            // MinIO stores an object as a directory, and incomplete ones in a directory next to the buckets.
            Self::Bucket { server, .. } => {
                (server.bucket_folder().parent().unwrap().to_owned(), ["_uploads", "multipart"])
            }
        };
        let mut found = Vec::new();
        walk(&root, &mut |path| {
            let folder = path.parent().and_then(Path::file_name).unwrap_or_default();
            if folders.iter().any(|name| folder == *name) {
                found.push(path.to_owned());
            }
        });
        found
    }

    /// Returns the size of all blobs in bytes, linked or not; `None` for a bucket, which has its own storage format.
    pub(crate) fn blob_bytes(&self) -> Option<u64> {
        let Self::Directory(dir) = self else { return None };
        let mut bytes = 0;
        walk(&dir.path().join("docker/registry/v2/blobs"), &mut |path| {
            bytes += fs::metadata(path).ok().filter(fs::Metadata::is_file).map_or(0, |file| file.len());
        });
        Some(bytes)
    }
}

fn walk(folder: &Path, see: &mut dyn FnMut(&Path)) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        see(&path);
        if path.is_dir() {
            walk(&path, see);
        }
    }
}
