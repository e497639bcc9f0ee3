//! The cache of the model: `kuik-registry --pull-through` over a directory that the test reads, wipes and ages.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use kuik_core::content::Digest;
use kuik_testkit::real::free_address;
use tempfile::TempDir;

use crate::support::{Kuik, blob_data};

/// Size limits: room for everything, and for about three images.
const LARGE: &str = "64Mi";
const SMALL: &str = "1700Ki";

/// How long an image is kept that no cluster manages. Pulls are recorded to the minute, so it may be a minute longer.
const UNMANAGED_EXPIRY: Duration = Duration::from_secs(30);
pub(super) const UNMANAGED_FOR: (Duration, Duration) =
    (UNMANAGED_EXPIRY, Duration::from_secs(UNMANAGED_EXPIRY.as_secs() + 60));

pub(super) struct Cache {
    process: Option<Kuik>,
    pub(super) address: String,
    upstream: String,
    folder: TempDir,
    pub(super) is_small: bool,
}

impl Cache {
    /// Starts the cache of the registry at `upstream`.
    pub(super) async fn start(upstream: String) -> Self {
        let address = free_address().await.unwrap().to_string();
        let folder = tempfile::tempdir().unwrap();
        let mut cache = Self { process: None, address, upstream, folder, is_small: false };
        cache.resume().await;
        cache
    }

    /// Kills it, as a crash would.
    pub(super) async fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill().await;
        }
    }

    /// Starts it again with what it has stored.
    pub(super) async fn resume(&mut self) {
        let limit = if self.is_small { SMALL } else { LARGE };
        let expiry = format!("{}s", UNMANAGED_EXPIRY.as_secs());
        let flags = [
            "--pull-through",
            "--insecure-registries",
            &self.upstream,
            "--allow-anonymous-push",
            "--max-size",
            limit,
            "--unmanaged-expiry",
            &expiry,
        ];
        self.process = Some(Kuik::registry_at(&self.address, &self.data(), &flags).await);
    }

    /// Removes everything that it has stored. It must not run.
    pub(super) fn wipe(&self) {
        fs::remove_dir_all(self.data()).unwrap();
    }

    /// Makes everything that it has stored older: for the process that is started next, its clock was moved forward.
    /// Content by the times of its files, pulls and retention documents by what is written in them.
    pub(super) fn age(&self, by: Duration) {
        for file in files(&self.data()) {
            let written = fs::metadata(&file).unwrap().modified().unwrap();
            match file.file_name().unwrap().to_str().unwrap() {
                "pulls" => age_pulls(&file, by),
                name if name.starts_with("retention.") => age_document(&file, by),
                _ => {}
            }
            fs::File::options().write(true).open(&file).unwrap().set_modified(written - by).unwrap();
        }
    }

    pub(super) fn process(&self) -> &Kuik {
        self.process.as_ref().unwrap()
    }

    pub(super) fn log(&self) -> String {
        self.process.as_ref().map(Kuik::log).unwrap_or_default()
    }

    /// The images that the running process has evicted or let expire, by the digests of their indexes.
    pub(super) fn removed_images(&self) -> Vec<Digest> {
        let log = self.log();
        let removals = log.lines().filter(|line| {
            line.contains("evicted image") || line.contains("removed an unmanaged image that")
        });
        removals
            .filter_map(|line| line.split_once("digest=")?.1.split_whitespace().next()?.parse().ok())
            .collect()
    }

    /// The digest under a tag, if there is one.
    pub(super) fn tag(&self, repository: &str, tag: &str) -> Option<Digest> {
        let link = self.repository(repository).join("_manifests/tags").join(tag).join("current/link");
        fs::read_to_string(link).ok()?.trim().parse().ok()
    }

    /// Whether a repository has a manifest.
    pub(super) fn has_manifest(&self, repository: &str, digest: &Digest) -> bool {
        let revisions = self.repository(repository).join("_manifests/revisions/sha256");
        revisions.join(digest.encoded()).join("link").exists() && self.has(digest)
    }

    /// Whether a repository has a blob.
    pub(super) fn has_blob(&self, repository: &str, digest: &Digest) -> bool {
        let layers = self.repository(repository).join("_layers/sha256");
        layers.join(digest.encoded()).join("link").exists() && self.has(digest)
    }

    /// Whether it has a blob or manifest, in whatever repository.
    pub(super) fn has(&self, digest: &Digest) -> bool {
        blob_data(&self.data(), digest).exists()
    }

    /// When a blob or manifest was written.
    pub(super) fn written(&self, digest: &Digest) -> Option<SystemTime> {
        fs::metadata(blob_data(&self.data(), digest)).ok()?.modified().ok()
    }

    /// When the manifests of a repository were last pulled, as far as that is recorded.
    pub(super) fn pulls(&self, repository: &str) -> BTreeMap<String, SystemTime> {
        let text = fs::read(self.data().join(".kuik/notes").join(repository).join("_notes/pulls"));
        let minutes: BTreeMap<String, u64> =
            text.map(|text| serde_json::from_slice(&text).unwrap()).unwrap_or_default();
        let at = |minute| SystemTime::UNIX_EPOCH + Duration::from_secs(minute * 60);
        minutes.into_iter().map(|(digest, minute)| (digest, at(minute))).collect()
    }

    fn repository(&self, name: &str) -> PathBuf {
        self.data().join("docker/registry/v2/repositories").join(name)
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn age_pulls(file: &Path, by: Duration) {
    let mut minutes: BTreeMap<String, u64> = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    for minute in minutes.values_mut() {
        *minute -= by.as_secs() / 60;
    }
    fs::write(file, serde_json::to_vec(&minutes).unwrap()).unwrap();
}

/// A document is stored behind a line with the version of the format, the time in seconds, and a digest.
fn age_document(file: &Path, by: Duration) {
    let text = fs::read_to_string(file).unwrap();
    let (line, document) = text.split_once('\n').unwrap();
    let words: Vec<_> = line.split(' ').collect();
    let [format, seconds, digest] = words[..] else { panic!("{line}") };
    let seconds = seconds.parse::<u64>().unwrap() - by.as_secs();
    fs::write(file, format!("{format} {seconds} {digest}\n{document}")).unwrap();
}
