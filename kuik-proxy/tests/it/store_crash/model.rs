//! Model of what a store may and must have, from the journal of the process that changed it.
//!
//! Each item has the set of states that it may be in: one, if its last change was acknowledged; the states before and
//! after a change that was in progress when the process was killed.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use bytes::Bytes;
use futures::TryStreamExt as _;
use kuik_core::{
    content::{
        ByteRange, ContentSource as _, DecodedManifest, Digest, Freshness, Manifest, RegistryStore as _,
        TagOrDigest, TagPage, UploadId,
    },
    reference::RepositoryName,
};
use kuik_proxy::store::FilesystemStore;

use super::load::{self, Change, Entry};

#[derive(Debug, Default)]
pub(crate) struct Model {
    /// Number of acknowledged changes.
    pub(crate) acknowledged: u64,
    blobs: BTreeMap<u64, BTreeSet<bool>>,
    manifests: BTreeMap<u64, BTreeSet<bool>>,
    tags: BTreeMap<String, BTreeSet<Option<u64>>>,
    uploads: BTreeMap<String, Uploaded>,
}

#[derive(Debug)]
struct Uploaded {
    /// Expected blob; `None` if nothing was sent yet.
    blob: Option<u64>,
    acknowledged: usize,
    sent: usize,
    /// It was being finished and may be gone.
    finishing: bool,
}

/// Certainty of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Certainty {
    /// Acknowledged.
    Done,
    /// Possibly made, in part or as a whole.
    InFlight,
}

impl Model {
    pub(crate) fn read(journal: &Path) -> Self {
        let mut model = Self::default();
        let mut trying: Option<Change> = None;
        for entry in load::read(journal) {
            match (entry, trying.take()) {
                (Entry::Trying(change), None) => trying = Some(change),
                (Entry::Done { id }, Some(change)) => {
                    model.acknowledged += 1;
                    model.apply(change, id, Certainty::Done);
                }
                (Entry::Refused, Some(change)) => model.was_refused(&change),
                (entry, trying) => panic!("{entry:?} after {trying:?}"),
            }
        }
        if let Some(change) = trying {
            model.apply(change, None, Certainty::InFlight);
        }
        model
    }

    fn apply(&mut self, change: Change, id: Option<String>, certainty: Certainty) {
        match change {
            Change::PutBlob { blob } => become_(&mut self.blobs, blob, true, certainty),
            Change::UnlinkBlob { blob } => become_(&mut self.blobs, blob, false, certainty),
            Change::PutManifest { manifest, tag } => {
                become_(&mut self.manifests, manifest, true, certainty);
                become_(&mut self.tags, tag, Some(manifest), certainty);
            }
            Change::DeleteTag { tag } => become_(&mut self.tags, tag, None, certainty),
            Change::DeleteManifest { manifest } => {
                become_(&mut self.manifests, manifest, false, certainty);
                let on_it = |(tag, states): (&String, &BTreeSet<_>)| {
                    states.contains(&Some(manifest)).then(|| tag.clone())
                };
                let tags: Vec<String> = self.tags.iter().filter_map(on_it).collect();
                tags.into_iter().for_each(|tag| become_(&mut self.tags, tag, None, certainty));
            }
            Change::StartUpload => {
                let begun = Uploaded { blob: None, acknowledged: 0, sent: 0, finishing: false };
                self.uploads.extend(id.map(|id| (id, begun)));
            }
            Change::Append { id, blob, until } => {
                let upload = self.uploads.get_mut(&id).unwrap();
                (upload.blob, upload.sent) = (Some(blob), until);
                if certainty == Certainty::Done {
                    upload.acknowledged = until;
                }
            }
            Change::Finish { id, blob } => {
                become_(&mut self.blobs, blob, true, certainty);
                match certainty {
                    Certainty::Done => drop(self.uploads.remove(&id)),
                    Certainty::InFlight => self.uploads.get_mut(&id).unwrap().finishing = true,
                }
            }
        }
    }

    /// Only changes of absent items may be refused.
    fn was_refused(&self, change: &Change) {
        let absent = match change {
            Change::UnlinkBlob { blob } => !self.blobs.get(blob).is_some_and(|states| states.contains(&true)),
            Change::DeleteTag { tag } => self.tags.get(tag).is_none_or(|states| states.contains(&None)),
            Change::DeleteManifest { manifest } => {
                !self.manifests.get(manifest).is_some_and(|states| states.contains(&true))
            }
            _ => false,
        };
        assert!(absent, "{change:?} was refused");
    }

    /// Checks the store against the model, and resumes every upload to its end.
    pub(crate) async fn check(&mut self, store: &FilesystemStore, round: u32, worker: u32) {
        let repository = load::repository(round, worker);
        for (id, upload) in std::mem::take(&mut self.uploads) {
            let Some(number) = upload.blob else { continue };
            let content = load::blob(round, worker, number);
            if resume(store, &repository, &id, &upload, &content).await {
                self.blobs.insert(number, BTreeSet::from([true]));
            }
        }
        for (number, states) in &self.blobs {
            let found = has_blob(store, &repository, &load::blob(round, worker, *number)).await;
            assert!(
                states.contains(&found),
                "blob {number} of {repository} is there: {found}, not {states:?}"
            );
        }
        let mut visible = BTreeSet::new();
        for (number, states) in &self.manifests {
            let manifest = load::manifest(round, worker, *number);
            let found = has_manifest(store, &repository, &manifest).await;
            assert!(
                states.contains(&found),
                "manifest {number} of {repository} is there: {found}, not {states:?}"
            );
            visible.extend(found.then(|| manifest.digest().clone()));
            if found && number.is_multiple_of(2) {
                is_a_referrer(store, &repository, &manifest).await;
            }
        }
        let listed: BTreeSet<Digest> = store.manifests(&repository).try_collect().await.unwrap();
        assert_eq!(listed, visible, "the manifests of {repository} are those that were put");
        self.check_tags(store, &repository, |number| load::manifest(round, worker, number)).await;
    }

    async fn check_tags(
        &self,
        store: &FilesystemStore,
        repository: &RepositoryName,
        manifest: impl Fn(u64) -> Manifest,
    ) {
        let mut tagged = Vec::new();
        for (tag, states) in &self.tags {
            let at = TagOrDigest::Tag(tag.parse().unwrap());
            let found = match store.manifest(repository, &at, Freshness::Cached).await {
                Ok(found) => Some(found.content),
                Err(error) => {
                    assert!(error.is_not_found(), "{}", error.chain());
                    None
                }
            };
            tagged.extend(found.is_some().then(|| tag.clone()));
            let allowed: Vec<_> = states.iter().map(|number| number.map(&manifest)).collect();
            assert!(allowed.contains(&found), "{tag} of {repository} points at {found:?}, not {states:?}");
        }
        match store.tags(repository, &TagPage::default()).await {
            Ok(listed) => {
                assert_eq!(listed.tags, tagged, "the tags of {repository} are those with a target");
            }
            Err(error) => assert!(error.is_not_found() && tagged.is_empty(), "{}", error.chain()),
        }
    }
}

/// An item that was never changed is absent.
fn become_<K: Ord, V: Ord + Default>(
    things: &mut BTreeMap<K, BTreeSet<V>>,
    key: K,
    state: V,
    certainty: Certainty,
) {
    let states = things.entry(key).or_insert_with(|| BTreeSet::from([V::default()]));
    if certainty == Certainty::Done {
        states.clear();
    }
    states.insert(state);
}

/// Sends the rest of an upload; returns whether it still existed.
async fn resume(
    store: &FilesystemStore,
    repository: &RepositoryName,
    id: &str,
    known: &Uploaded,
    content: &Bytes,
) -> bool {
    let mut upload = match store.upload(repository, &id.parse::<UploadId>().unwrap()).await {
        Ok(upload) => upload,
        Err(error) => {
            let may_be_gone = known.finishing && error.is_not_found();
            assert!(may_be_gone, "an upload with {} bytes: {}", known.acknowledged, error.chain());
            return false;
        }
    };
    let offset = usize::try_from(upload.offset()).unwrap();
    assert!(
        (known.acknowledged..=known.sent).contains(&offset),
        "an upload resumes at {offset}: {} were acknowledged and {} sent",
        known.acknowledged,
        known.sent
    );
    upload.append(&[content.slice(offset..)]).await.unwrap();
    upload.finish(&Digest::sha256(content)).await.unwrap();
    true
}

async fn has_blob(store: &FilesystemStore, repository: &RepositoryName, content: &Bytes) -> bool {
    match store.blob(repository, &Digest::sha256(content), ByteRange::Full).await {
        Ok(blob) => {
            let read: Vec<Bytes> = blob.content.body.try_collect().await.unwrap();
            assert!(read.concat() == *content, "a blob of {repository} has other bytes");
            true
        }
        Err(error) => {
            assert!(error.is_not_found(), "{}", error.chain());
            false
        }
    }
}

async fn has_manifest(store: &FilesystemStore, repository: &RepositoryName, manifest: &Manifest) -> bool {
    let at = TagOrDigest::Digest(manifest.digest().clone());
    match store.manifest(repository, &at, Freshness::Cached).await {
        Ok(found) => {
            assert_eq!(&found.content, manifest);
            true
        }
        Err(error) => {
            assert!(error.is_not_found(), "{}", error.chain());
            false
        }
    }
}

async fn is_a_referrer(store: &FilesystemStore, repository: &RepositoryName, manifest: &Manifest) {
    let subject = manifest.subject().unwrap();
    let referrers = store.referrers(repository, &subject, None).await.unwrap();
    let index = Manifest::new(None, referrers.index).unwrap().decode().unwrap();
    let DecodedManifest::Index(index) = index else { panic!("not an index") };
    let listed: Vec<_> = index.manifests.into_iter().map(|listed| listed.digest).collect();
    assert_eq!(listed, [manifest.digest().clone()], "the referrers of {subject} in {repository}");
}
