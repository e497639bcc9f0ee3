//! `kuik-registry` among real registries and clients that are built from Go: one directory with Docker's registry 3 and
//! 2.8 by turns, and crane, on images as buildx makes them.

use crate::support::{Kuik, get, pull_with_skopeo, push};
use kuik_testkit::SampleImage;
use kuik_testkit::real::{DockerRegistry, RegistryOptions, RegistryVersion, crane, skopeo};

const OPEN: &[&str] = &["--allow-anonymous-push"];

fn image(seed: u64) -> SampleImage {
    let platforms = SampleImage::builder().seed(seed).platform("linux", "amd64").platform("linux", "arm64");
    platforms.layer(60_000).layer(5_000).as_buildx().build()
}

async fn with_crane(arguments: &[&str]) -> String {
    let said = crane(arguments).await.unwrap_or_else(|error| panic!("crane {arguments:?}: {error}"));
    said.trim().to_owned()
}

/// A registry that has the directory for a while.
enum Registry {
    Docker(DockerRegistry),
    Ours(Kuik),
}

impl Registry {
    fn host(&self) -> String {
        match self {
            Self::Docker(docker) => docker.host(),
            Self::Ours(ours) => ours.host(),
        }
    }

    async fn stop(self) {
        match self {
            Self::Docker(mut docker) => docker.stop().await.unwrap(),
            Self::Ours(mut ours) => {
                ours.terminate();
                assert!(ours.ended().await.success(), "{}", ours.log());
            }
        }
    }
}

/// Content that each of three registries pushes into one directory is served by the other two, by tag and by digest.
#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn one_directory_goes_round_between_three_registries() {
    let data = tempfile::tempdir().unwrap();
    let over = |version| RegistryOptions {
        storage: Some(data.path().to_owned()),
        version,
        ..RegistryOptions::default()
    };
    let mut pushed: Vec<(String, SampleImage)> = Vec::new();
    let mut seed = 60;
    // Twice around: each has pushed before each other reads.
    for _ in 0..2 {
        for version in [Some(RegistryVersion::V2), None, Some(RegistryVersion::V3), None] {
            seed += 10;
            let registry = match version {
                Some(version) => Registry::Docker(DockerRegistry::start(&over(version)).await.unwrap()),
                None => Registry::Ours(Kuik::registry(data.path(), OPEN).await),
            };
            let host = registry.host();
            for (name, image) in &pushed {
                pull_with_skopeo(&format!("{host}/{name}@{}", image.index().digest()), image).await;
                pull_with_skopeo(&format!("{host}/{name}:v1"), image).await;
            }
            let (name, image) = (format!("team/app-{seed}"), image(seed));
            push(&image, &format!("{host}/{name}:v1"), &[]).await;
            pushed.push((name, image));
            registry.stop().await;
        }
    }
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn crane_validates_and_copies_and_digests_stay() {
    let image = image(31);
    let digest = image.index().digest().to_string();
    let data = tempfile::tempdir().unwrap();
    let ours = Kuik::registry(data.path(), OPEN).await;
    let theirs = DockerRegistry::start(&RegistryOptions {
        version: RegistryVersion::V3,
        ..RegistryOptions::default()
    })
    .await
    .unwrap();
    let at_theirs = format!("{}/origin/app:v1", theirs.host());
    push(&image, &at_theirs, &[]).await;

    let at_ours = format!("{}/copied/app:v1", ours.host());
    with_crane(&["copy", &at_theirs, &at_ours]).await;
    assert_eq!(with_crane(&["digest", &at_ours]).await, digest);
    with_crane(&["validate", "--remote", &at_ours]).await;
    let by_digest = format!("{}/copied/app@{digest}", ours.host());
    with_crane(&["validate", "--remote", &by_digest]).await;

    let back = format!("{}/back/app:v2", theirs.host());
    with_crane(&["copy", &by_digest, &back]).await;
    assert_eq!(with_crane(&["digest", &back]).await, digest);
    pull_with_skopeo(&back, &image).await;

    // Each attestation names its image as subject: it is among what refers to that.
    let amd64 = image.manifests()[0].digest();
    let referrers = get(ours.address(), &format!("/v2/copied/app/referrers/{amd64}")).await;
    let attestation = image.manifests()[2].digest().as_str();
    assert!(String::from_utf8_lossy(&referrers.body).contains(attestation), "{referrers:?}");
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn clients_delete_exactly_what_they_request() {
    let (first, second) = (image(41), image(42));
    let data = tempfile::tempdir().unwrap();
    let ours = Kuik::registry(data.path(), OPEN).await;
    let at = |tag: &str| format!("{}/team/app:{tag}", ours.host());
    push(&first, &at("one"), &[]).await;
    push(&first, &at("same"), &[]).await;
    push(&second, &at("other"), &[]).await;
    push(&second, &format!("{}/team/elsewhere:it", ours.host()), &[]).await;
    let tags = async || with_crane(&["ls", &format!("{}/team/app", ours.host())]).await;
    assert_eq!(tags().await, "one\nother\nsame");

    // Deleting one of two tags with the same digest keeps the other.
    with_crane(&["delete", &at("one")]).await;
    assert_eq!(tags().await, "other\nsame");
    with_crane(&["validate", "--remote", &at("same")]).await;

    // By digest, as skopeo deletes, every tag on it goes.
    let tls = "--tls-verify=false";
    skopeo(["delete", tls, &format!("docker://{}", at("other"))]).await.unwrap();
    assert_eq!(tags().await, "same");
    assert!(crane(["digest", &at("other")]).await.is_err());
    with_crane(&["validate", "--remote", &at("same")]).await;
    with_crane(&["validate", "--remote", &format!("{}/team/elsewhere:it", ours.host())]).await;
}
