//! The layout on disk is that of Docker's registry: it serves what we wrote, and we serve what it wrote.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may fail"
)]

mod rig;

use kuik_core::{
    content::{ByteRange, ContentSource, Freshness, Served, TagOrDigest, TagPage},
    reference::RepositoryName,
    registry::Timeouts,
    testkit::{
        SampleImage,
        real::{DockerRegistry, RegistryOptions, skopeo},
    },
};
use rig::{Rig, client, open, read};

/// Reads all of an image, by tag and by digest, and compares every byte.
async fn holds(source: &dyn ContentSource, repository: &RepositoryName, image: &SampleImage) {
    let manifest = async |at: TagOrDigest| {
        let manifest = source.manifest(repository, &at, Freshness::Cached).await;
        manifest.map(|Served { content, .. }| content).unwrap_or_else(|error| panic!("{}", error.chain()))
    };
    assert_eq!(&manifest(TagOrDigest::Tag("v1".parse().unwrap())).await, image.index());
    for expected in image.manifests().iter().chain([image.index()]) {
        assert_eq!(&manifest(TagOrDigest::Digest(expected.digest().clone())).await, expected);
    }
    for (digest, bytes) in image.blobs() {
        let blob = source.blob(repository, digest, ByteRange::Full).await.unwrap().content;
        assert_eq!(&read(blob).await.0, bytes);
    }
    assert_eq!(source.tags(repository, &TagPage::default()).await.unwrap().tags, ["v1"]);
}

#[tokio::test]
async fn dockers_registry_serves_what_we_wrote() {
    let rig = Rig::start().await;
    let image = SampleImage::small(1);
    rig.upstream.add_image("team/app", "v1", &image);
    let ours = rig.upstream.repository("team/app").unwrap();
    holds(&rig.cache, &ours, &image).await;
    rig.cache.drain().await;
    let Rig { data, cache, proxy, .. } = rig;
    drop((cache, proxy));

    let storage = Some(data.path().to_owned());
    let registry =
        DockerRegistry::start(&RegistryOptions { storage, ..RegistryOptions::default() }).await.unwrap();
    let theirs = RepositoryName::new(&registry.host(), &ours.encoded().unwrap()).unwrap();
    holds(&client(&registry.host(), Timeouts::default()), &theirs, &image).await;
}

#[tokio::test]
async fn we_serve_what_dockers_registry_wrote() {
    let (data, layout) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let image = SampleImage::small(2);
    image.write_layout(layout.path(), "v1").unwrap();
    let storage = Some(data.path().to_owned());
    let mut registry =
        DockerRegistry::start(&RegistryOptions { storage, ..RegistryOptions::default() }).await.unwrap();
    let from = format!("oci:{}:v1", layout.path().display());
    let to = format!("docker://{}/registry__5000/app:v1", registry.host());
    skopeo(["copy", "--all", "--preserve-digests", "--dest-tls-verify=false", &from, &to]).await.unwrap();
    registry.stop().await.unwrap();

    let repository = RepositoryName::new("registry:5000", "app").unwrap();
    holds(open(data.path()).as_ref(), &repository, &image).await;
}
