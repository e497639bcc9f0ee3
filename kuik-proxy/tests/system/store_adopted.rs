//! Adoption of a volume of Docker's registry, in both directions.
//!
//! Docker's registry and skopeo are the second, independent reader and writer of the layout.

use std::{fs, path::Path};

use bytes::Bytes;
use futures::TryStreamExt as _;
use kuik_core::{
    content::{
        ContentSource as _, ContentStore as _, DecodedManifest, Descriptor, Digest, Freshness, ImageManifest,
        Manifest, MediaType, RegistryStore as _, TagOrDigest, TagPage, UploadId, Verifier,
    },
    reference::RepositoryName,
};
use kuik_proxy::store::FilesystemStore;
use kuik_testkit::{
    SampleImage,
    real::{DockerRegistry, RegistryOptions, skopeo},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

const SBOM: &str = "application/vnd.example.sbom";

/// A referrer of `subject`, and its configuration.
fn referrer(subject: &Manifest, name: &str) -> (Manifest, Bytes) {
    let config = Bytes::from(format!("{{\"name\":{name:?}}}"));
    let descriptor = Descriptor::new(MediaType::OCI_CONFIG, Digest::sha256(&config), config.len() as u64);
    let mut manifest = ImageManifest::new(descriptor, Vec::new());
    manifest.artifact_type = Some(SBOM.to_owned());
    manifest.subject = Some(subject.descriptor());
    (Manifest::new(None, serde_json::to_vec(&manifest).unwrap().into()).unwrap(), config)
}

/// Pushes one manifest and its blob with skopeo.
async fn push(folder: &Path, manifest: &Manifest, config: &Bytes, to: &str) {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    for bytes in [manifest.bytes(), config] {
        fs::write(blobs.join(Digest::sha256(bytes).encoded()), bytes).unwrap();
    }
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [manifest.descriptor()]});
    fs::write(folder.join("index.json"), index.to_string()).unwrap();
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    copy(&format!("oci:{}", folder.display()), to).await;
}

async fn copy(from: &str, to: &str) {
    skopeo(["copy", "--all", "--preserve-digests", "--dest-tls-verify=false", from, to]).await.unwrap();
}

/// Returns the headers and the body of the response to a plain request.
async fn ask(host: &str, head: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(host).await.unwrap();
    let length = body.len();
    let request = format!(
        "{head} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn location(answer: &str) -> String {
    let line = answer.lines().find(|line| line.to_ascii_lowercase().starts_with("location:"));
    let url = line.unwrap_or_else(|| panic!("no location in {answer}"))["location:".len()..].trim();
    let path = url.split_once("://").map_or(url, |(_, rest)| &rest[rest.find('/').unwrap()..]);
    path.to_owned()
}

async fn referrers(store: &FilesystemStore, app: &RepositoryName, subject: &Digest) -> Vec<Digest> {
    let found = store.referrers(app, subject, Some(SBOM)).await.unwrap();
    let index = Manifest::new(None, found.index).unwrap().decode().unwrap();
    let DecodedManifest::Index(index) = index else { panic!("not an index") };
    index.manifests.into_iter().map(|listed| listed.digest).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn volume_is_shared_with_dockers_registry_in_turn() {
    let dir = tempfile::tempdir().unwrap();
    let (volume, layouts) = (dir.path().join("volume"), dir.path().join("layouts"));
    let options = RegistryOptions { storage: Some(volume.clone()), ..RegistryOptions::default() };
    let image = SampleImage::small(7);
    let app = RepositoryName::local("team/app").unwrap();
    let (sbom, sbom_config) = referrer(image.index(), "first");

    // Docker's registry writes.
    let mut registry = DockerRegistry::start(&options).await.unwrap();
    let host = registry.host();
    image.write_layout(&layouts.join("image"), "v1").unwrap();
    for tag in ["v1", "v2"] {
        let from = format!("oci:{}:v1", layouts.join("image").display());
        copy(&from, &format!("docker://{host}/team/app:{tag}")).await;
    }
    push(&layouts.join("sbom"), &sbom, &sbom_config, &format!("docker://{host}/team/app:sbom")).await;
    let begun = location(&ask(&host, "POST /v2/team/app/blobs/uploads/", "").await);
    ask(&host, &format!("PATCH {begun}"), "hello ").await;
    registry.stop().await.unwrap();
    fs::create_dir_all(volume.join("docker/registry/v2/repositories/lost+found")).unwrap();
    fs::write(volume.join("docker/registry/v2/repositories/team/notes.txt"), "foreign").unwrap();
    fs::write(volume.join("docker/registry/v2/blobs/sha256/notes.txt"), "foreign").unwrap();

    // kuik reads all of it, and changes it.
    let store = FilesystemStore::open(&volume).unwrap();
    let repositories: Vec<_> = store.repositories().try_collect().await.unwrap();
    assert_eq!(repositories, std::slice::from_ref(&app));
    let tags = store.tags(&app, &TagPage::default()).await.unwrap();
    assert_eq!(tags.tags, ["sbom", "v1", "v2"]);
    let at = TagOrDigest::Tag("v1".parse().unwrap());
    assert_eq!(&store.manifest(&app, &at, Freshness::Cached).await.unwrap().content, image.index());
    for (digest, bytes) in image.blobs() {
        assert_eq!(store.blob_size(&app, digest).await.unwrap().content, bytes.len() as u64);
    }
    let manifests: Vec<_> = store.manifests(&app).try_collect().await.unwrap();
    assert_eq!(manifests.len(), image.manifests().len() + 2);
    let blobs: Vec<_> = store.blobs().try_collect().await.unwrap();
    assert_eq!(blobs.len(), manifests.len() + image.blobs().len() + 1);
    assert_eq!(referrers(&store, &app, image.index().digest()).await, [sbom.digest().clone()]);

    let id = begun.split('?').next().unwrap().rsplit('/').next().unwrap();
    let mut upload = store.upload(&app, &id.parse::<UploadId>().unwrap()).await.unwrap();
    assert_eq!(upload.offset(), 6);
    upload.append(&["world".into()]).await.unwrap();
    let pushed = Digest::sha256(b"hello world");
    upload.finish(&pushed).await.unwrap();
    store.delete_tag(&app, &"v2".parse().unwrap()).await.unwrap();
    let (ours, ours_config) = referrer(image.index(), "second");
    let mut verifier = Verifier::new(&Digest::sha256(&ours_config)).unwrap();
    verifier.update(&ours_config);
    let mut writer = store.write_blob().await.unwrap();
    writer.append(std::slice::from_ref(&ours_config)).await.unwrap();
    writer.publish(verifier.finish().unwrap(), std::slice::from_ref(&app)).await.unwrap();
    store.put_manifest(&app, &ours, Some(&"ours".parse().unwrap())).await.unwrap();
    store.start_upload(&app).await.unwrap();
    drop(store);

    // Docker's registry reads it, and writes again.
    registry.resume().await.unwrap();
    let listed =
        skopeo(["list-tags", "--tls-verify=false", &format!("docker://{host}/team/app")]).await.unwrap();
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let mut listed: Vec<&str> =
        listed["Tags"].as_array().unwrap().iter().flat_map(|tag| tag.as_str()).collect();
    listed.sort_unstable();
    assert_eq!(listed, ["ours", "sbom", "v1"]);
    let (from, to) =
        (format!("docker://{host}/team/app:v1"), format!("dir:{}", layouts.join("pulled").display()));
    skopeo(["copy", "--all", "--preserve-digests", "--src-tls-verify=false", &from, &to]).await.unwrap();
    for manifest in [image.index(), &sbom, &ours] {
        let image = format!("docker://{host}/team/app@{}", manifest.digest());
        let raw = skopeo(["inspect", "--raw", "--tls-verify=false", &image]).await.unwrap();
        assert_eq!(raw.as_bytes(), manifest.bytes());
    }
    let answer = ask(&host, &format!("GET /v2/team/app/blobs/{pushed}"), "").await;
    assert!(answer.ends_with("hello world"), "{answer}");
    let catalog = ask(&host, "GET /v2/_catalog", "").await;
    assert!(catalog.contains("team/app"), "{catalog}");
    let (third, third_config) = referrer(image.index(), "third");
    push(&layouts.join("third"), &third, &third_config, &format!("docker://{host}/team/app:third")).await;
    registry.stop().await.unwrap();

    // New content is in the referrers index too.
    let store = FilesystemStore::open(&volume).unwrap();
    let mut expected = [sbom, ours, third].map(|manifest| manifest.digest().clone());
    expected.sort();
    assert_eq!(referrers(&store, &app, image.index().digest()).await, expected);
}
