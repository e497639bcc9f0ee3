//! The images of the upstream registry, and how often each blob may be fetched from there.

use std::collections::{BTreeMap, BTreeSet};

use http::Method;
use kuik_core::content::Digest;
use kuik_testkit::{SampleImage, ScriptedRegistry, Target};

use super::cache::Cache;
use crate::support::{name_of_app, proxied};

/// How many images pods use, and how many are only pulled without a pod that kuik manages.
pub(super) const APPS: usize = 8;
pub(super) const IMAGES: usize = 11;

/// The layer of each image, in bytes.
const LAYER: usize = 512 << 10;

/// An image under a tag.
#[derive(Default)]
pub(super) struct App {
    /// The versions so far; a tag that moves is at the last one.
    pub(super) versions: Vec<SampleImage>,
    /// Whether upstream has it.
    pub(super) is_upstream: bool,
}

pub(super) struct Images {
    pub(super) registry: ScriptedRegistry,
    pub(super) apps: Vec<App>,
    /// How often each blob may be fetched.
    allowed: BTreeMap<Digest, u64>,
    /// The blobs that the cache had when it was last looked at.
    stored: BTreeSet<Digest>,
    /// How many removals of images the running cache had logged then.
    removals: usize,
}

impl Images {
    pub(super) async fn start() -> Self {
        let registry = ScriptedRegistry::start().await.unwrap();
        let apps = (0..IMAGES).map(|_| App::default()).collect();
        let mut images =
            Self { registry, apps, allowed: BTreeMap::new(), stored: BTreeSet::new(), removals: 0 };
        (0..IMAGES).for_each(|app| images.publish(app));
        images
    }

    /// Puts a new version upstream, under the tag.
    pub(super) fn publish(&mut self, app: usize) {
        let seed = (app * 10_000 + self.apps[app].versions.len()) as u64 * 10;
        let image = SampleImage::builder().seed(seed).platform("linux", "amd64").layer(LAYER).build();
        self.registry.add_image(&path(app), "v1", &image);
        self.allowed.extend(image.blobs().keys().map(|blob| (blob.clone(), 1)));
        let app = &mut self.apps[app];
        app.versions.push(image);
        app.is_upstream = true;
    }

    /// Removes all versions from upstream.
    pub(super) fn vanish(&mut self, app: usize) {
        self.registry.remove(&path(app));
        self.apps[app].is_upstream = false;
    }

    /// The name of the image in pods.
    pub(super) fn reference(&self, app: usize) -> String {
        format!("{}/{}:v1", self.registry.host(), path(app))
    }

    /// The repository of the image in the cache.
    pub(super) fn repository(&self, app: usize) -> String {
        proxied(&self.registry.host(), &path(app))
    }

    /// The name of its CachedImage.
    pub(super) fn object_name(&self, app: usize) -> String {
        name_of_app(&self.registry.host(), "v1").replace("team-app-v1", &format!("team-app{app}-v1"))
    }

    /// The version of an app whose every part is in the cache, if one is there under the app's tag.
    pub(super) fn stored(&self, cache: &Cache, app: usize) -> Option<usize> {
        let repository = self.repository(app);
        let digest = cache.tag(&repository, "v1")?;
        let versions = &self.apps[app].versions;
        let version = versions.iter().position(|version| *version.index().digest() == digest)?;
        is_complete(cache, &repository, &versions[version]).then_some(version)
    }

    /// Lets every blob that has left the cache be fetched once more. Whether it was right that it left is not decided
    /// here.
    pub(super) fn observe(&mut self, cache: &Cache) {
        self.observe_removals(cache);
        let blobs = self.apps.iter().flat_map(|app| &app.versions).flat_map(|version| version.blobs().keys());
        let stored: BTreeSet<_> = blobs.filter(|blob| cache.has(blob)).cloned().collect();
        let left: Vec<_> = self.stored.difference(&stored).cloned().collect();
        self.stored = stored;
        self.allow(left);
    }

    /// The same for images that were removed and may be back already: the cache logs each removal.
    fn observe_removals(&mut self, cache: &Cache) {
        let removed = cache.removed_images();
        // Another process begins a new log.
        let new = removed.get(self.removals..).unwrap_or(&removed);
        for top in new {
            let versions = self.apps.iter().flat_map(|app| &app.versions);
            for blob in versions.filter(|it| it.index().digest() == top).flat_map(|it| it.blobs().keys()) {
                *self.allowed.entry(blob.clone()).or_default() += 1;
            }
        }
        self.removals = removed.len();
    }

    /// Lets every blob of `apps` that the cache lacks be fetched once more: what was fetched before was lost on its way,
    /// or there was no room for it.
    pub(super) fn allow_missing(&mut self, cache: &Cache, apps: impl Iterator<Item = usize>) {
        let versions = apps.flat_map(|app| {
            let tagged = cache.tag(&self.repository(app), "v1");
            let (last, others) = self.apps[app].versions.split_last().unwrap();
            others
                .iter()
                .filter(move |version| Some(version.index().digest()) == tagged.as_ref())
                .chain([last])
        });
        let missing = versions.flat_map(|version| version.blobs().keys()).filter(|blob| !cache.has(blob));
        let missing = missing.cloned().collect();
        self.allow(missing);
    }

    /// Lets blobs be fetched once more from now on.
    fn allow(&mut self, blobs: Vec<Digest>) {
        if blobs.is_empty() {
            return;
        }
        let (sent, sizes) = (self.sent(), self.sizes());
        for blob in blobs {
            let times = sent.get(&blob).map_or(0, |bytes| bytes.div_ceil(sizes[&blob]));
            let allowed = self.allowed.entry(blob).or_default();
            *allowed = (*allowed).max(times + 1);
        }
    }

    /// Bytes of blobs that upstream sent because they were needed, and those beyond that.
    pub(super) fn upstream_bytes(&self) -> (u64, u64) {
        let (sizes, mut needed, mut excess) = (self.sizes(), 0, 0);
        for (blob, bytes) in self.sent() {
            let allowed = self.allowed[&blob] * sizes[&blob];
            needed += bytes.min(allowed);
            excess += bytes.saturating_sub(allowed);
        }
        (needed, excess)
    }

    /// How many bytes upstream sent of each blob.
    fn sent(&self) -> BTreeMap<Digest, u64> {
        let mut sent = BTreeMap::new();
        let log = self.registry.log();
        for entry in log.iter().filter(|entry| entry.target == Target::Blob && entry.method == Method::GET) {
            if let Ok(digest) = entry.path.rsplit('/').next().unwrap().parse::<Digest>() {
                *sent.entry(digest).or_default() += entry.bytes_sent;
            }
        }
        sent
    }

    fn sizes(&self) -> BTreeMap<Digest, u64> {
        let blobs = self.apps.iter().flat_map(|app| &app.versions).flat_map(SampleImage::blobs);
        blobs.map(|(digest, bytes)| (digest.clone(), bytes.len() as u64)).collect()
    }
}

/// Whether a repository of the cache has every part of an image.
pub(super) fn is_complete(cache: &Cache, repository: &str, image: &SampleImage) -> bool {
    let mut manifests = image.manifests().iter().chain([image.index()]);
    manifests.all(|manifest| cache.has_manifest(repository, manifest.digest()))
        && image.blobs().keys().all(|blob| cache.has_blob(repository, blob))
}

/// The repository of an app upstream.
fn path(app: usize) -> String {
    format!("team/app{app}")
}
