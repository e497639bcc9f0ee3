//! Layout on disk, shared with Docker's registry: each serves what the other wrote.

use crate::harness::{Harness, client, open, read};
use kuik_core::{
    client::Timeouts,
    content::{ByteRange, Cached, ContentSource, Freshness, TagOrDigest, TagPage},
    reference::RepositoryName,
};
use kuik_testkit::{
    SampleImage,
    real::{DockerRegistry, RegistryOptions, skopeo},
};

/// Reads a whole image, by tag and by digest, and compares every byte.
async fn holds(source: &dyn ContentSource, repository: &RepositoryName, image: &SampleImage) {
    let manifest = async |at: TagOrDigest| {
        let manifest = source.manifest(repository, &at, Freshness::Cached).await;
        manifest.map(|Cached { content, .. }| content).unwrap_or_else(|error| panic!("{}", error.chain()))
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
async fn dockers_registry_serves_our_store() {
    let harness = Harness::start().await;
    let image = SampleImage::small(1);
    harness.upstream.add_image("team/app", "v1", &image);
    let ours = harness.upstream.repository("team/app").unwrap();
    holds(&harness.cache, &ours, &image).await;
    harness.cache.drain().await;
    let Harness { data, cache, proxy, .. } = harness;
    drop((cache, proxy));

    let storage = Some(data.path().to_owned());
    let registry =
        DockerRegistry::start(&RegistryOptions { storage, ..RegistryOptions::default() }).await.unwrap();
    let theirs = RepositoryName::new(&registry.host(), &ours.encoded().unwrap()).unwrap();
    holds(&client(&registry.host(), Timeouts::default()), &theirs, &image).await;
}

#[tokio::test]
async fn kuik_serves_a_store_of_dockers_registry() {
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
