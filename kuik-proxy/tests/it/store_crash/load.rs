//! Load: workers that push, put and delete as fast as they can, each in its own repository, and record each attempt
//! and its result in a journal.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use kuik_core::{
    content::{
        ContentStore as _, Descriptor, Digest, ImageManifest, Manifest, MediaType, RegistryStore as _,
        SourceError, UploadId, Verifier,
    },
    reference::{RepositoryName, Tag},
};
use kuik_proxy::store::FilesystemStore;
use serde::{Deserialize, Serialize};

/// Content below this number is the same for all workers, so that they write the same digests at once.
const SHARED: u64 = 12;
/// Number of different items of each worker. Few, so that they are removed and added again.
const THINGS: u64 = 40;
const TAGS: u64 = 6;

/// A change to the store.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Change {
    PutBlob { blob: u64 },
    UnlinkBlob { blob: u64 },
    PutManifest { manifest: u64, tag: String },
    DeleteTag { tag: String },
    DeleteManifest { manifest: u64 },
    StartUpload,
    Append { id: String, blob: u64, until: usize },
    Finish { id: String, blob: u64 },
}

/// A line of the journal.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Entry {
    /// Attempt.
    Trying(Change),
    /// Acknowledged; a new upload has this id.
    Done { id: Option<String> },
    /// Refused, because the item does not exist.
    Refused,
    /// Failed, which is an error.
    Failed { error: String },
}

pub(crate) fn journal(dir: &Path, round: u32, worker: u32) -> PathBuf {
    dir.join(format!("journal-{round}-{worker}"))
}

pub(crate) fn repository(round: u32, worker: u32) -> RepositoryName {
    RepositoryName::local(&format!("round-{round}/worker-{worker}")).unwrap()
}

pub(crate) fn blob(round: u32, worker: u32, number: u64) -> Bytes {
    let worker = if number < SHARED { 99 } else { worker };
    let line = format!("blob {number} of worker {worker} in round {round}\n");
    let size = 1000 + usize::try_from(number * 7919 % 150_000).unwrap();
    line.bytes().cycle().take(size).collect()
}

pub(crate) fn manifest(round: u32, worker: u32, number: u64) -> Manifest {
    let config = blob(round, worker, number);
    let config = Descriptor::new(MediaType::OCI_CONFIG, Digest::sha256(&config), config.len() as u64);
    let mut image = ImageManifest::new(config.clone(), Vec::new());
    // Every other manifest is a referrer too.
    image.subject = number.is_multiple_of(2).then_some(config);
    Manifest::new(None, serde_json::to_vec(&image).unwrap().into()).unwrap()
}

/// Runs until it is killed, or for longer than the test waits.
pub(crate) fn run(dir: &Path, round: u32, workers: u32) {
    let mut store = FilesystemStore::open(&dir.join("store")).unwrap();
    if round % 2 == 1 {
        // A killed process loses nothing of a cache either, and a cache is faster.
        store = store.as_cache();
    }
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        for worker in 0..workers {
            let journal = File::create_new(journal(dir, round, worker)).unwrap();
            let random = u64::from(round) << 32 | u64::from(worker) | 1 << 60;
            tokio::spawn(Worker { store: store.clone(), round, worker, journal, random }.run());
        }
        tokio::time::sleep(Duration::from_secs(30)).await;
    });
}

struct Worker {
    store: FilesystemStore,
    round: u32,
    worker: u32,
    journal: File,
    random: u64,
}

impl Worker {
    async fn run(mut self) {
        loop {
            match self.below(8) {
                0 => self.push().await,
                1 => {
                    let blob = self.below(THINGS);
                    self.change(Change::PutBlob { blob }).await;
                }
                2 => {
                    let blob = self.below(THINGS);
                    self.change(Change::UnlinkBlob { blob }).await;
                }
                3..=5 => {
                    let (manifest, tag) = (self.below(THINGS), self.tag());
                    self.change(Change::PutManifest { manifest, tag }).await;
                }
                6 => {
                    let tag = self.tag();
                    self.change(Change::DeleteTag { tag }).await;
                }
                _ => {
                    let manifest = self.below(THINGS);
                    self.change(Change::DeleteManifest { manifest }).await;
                }
            }
        }
    }

    async fn push(&mut self) {
        let blob = self.below(THINGS);
        let Some(id) = self.change(Change::StartUpload).await else { return };
        let size = self::blob(self.round, self.worker, blob).len();
        for part in 1..=3 {
            self.change(Change::Append { id: id.clone(), blob, until: size * part / 3 }).await;
        }
        // Some uploads are not finished.
        if self.below(5) > 0 {
            self.change(Change::Finish { id, blob }).await;
        }
    }

    /// Makes one change, with its lines in the journal; returns the id of a new upload.
    async fn change(&mut self, change: Change) -> Option<String> {
        self.write(&Entry::Trying(change.clone()));
        let entry = match self.apply(change).await {
            Ok(id) => Entry::Done { id },
            Err(error) if error.is_not_found() => Entry::Refused,
            Err(error) => Entry::Failed { error: error.chain() },
        };
        self.write(&entry);
        match entry {
            Entry::Done { id } => id,
            _ => None,
        }
    }

    async fn apply(&self, change: Change) -> Result<Option<String>, SourceError> {
        let (store, repository) = (&self.store, repository(self.round, self.worker));
        let content = |number| blob(self.round, self.worker, number);
        let manifest = |number| manifest(self.round, self.worker, number);
        match change {
            Change::PutBlob { blob } => {
                let content = content(blob);
                let mut verifier = Verifier::new(&Digest::sha256(&content)).unwrap();
                verifier.update(&content);
                let mut writer = store.write_blob().await?;
                writer.append(&[content]).await?;
                writer.publish(verifier.finish().unwrap(), &[repository]).await?;
            }
            Change::UnlinkBlob { blob } => {
                store.unlink_blob(&repository, &Digest::sha256(&content(blob))).await?;
            }
            Change::PutManifest { manifest: number, tag } => {
                store
                    .put_manifest(&repository, &manifest(number), Some(&tag.parse::<Tag>().unwrap()))
                    .await?;
            }
            Change::DeleteTag { tag } => store.delete_tag(&repository, &tag.parse::<Tag>().unwrap()).await?,
            Change::DeleteManifest { manifest: number } => {
                store.delete_manifest(&repository, manifest(number).digest()).await?;
            }
            Change::StartUpload => {
                return Ok(Some(store.start_upload(&repository).await?.as_str().to_owned()));
            }
            Change::Append { id, blob, until } => {
                let mut upload = store.upload(&repository, &id.parse::<UploadId>().unwrap()).await?;
                let from = usize::try_from(upload.offset()).unwrap();
                upload.append(&[content(blob).slice(from..until)]).await?;
            }
            Change::Finish { id, blob } => {
                let upload = store.upload(&repository, &id.parse::<UploadId>().unwrap()).await?;
                upload.finish(&Digest::sha256(&content(blob))).await?;
            }
        }
        Ok(None)
    }

    /// One write, which a kill leaves complete or undone.
    fn write(&mut self, entry: &Entry) {
        let line = serde_json::to_string(entry).unwrap() + "\n";
        self.journal.write_all(line.as_bytes()).unwrap();
    }

    fn tag(&mut self) -> String {
        format!("tag-{}", self.below(TAGS))
    }

    /// Returns a number below `limit`, by xorshift.
    fn below(&mut self, limit: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % limit
    }
}

/// Returns the journal of a killed worker. Its last line may be truncated.
pub(crate) fn read(journal: &Path) -> Vec<Entry> {
    let text = fs::read_to_string(journal).unwrap();
    text.lines().map_while(|line| serde_json::from_str(line).ok()).collect()
}
