//! A cluster that has kuik 1.14: what it left in the API is taken over as it is, and given back.

use std::path::PathBuf;

use kuik_testkit::real::{DockerRegistry, RegistryOptions, run, skopeo};
use serde_json::{Value, json};

use super::{
    Image, NAMESPACE, Scenario, Upstream, apply, helm, json as get, kubectl,
    pod::{image_of, rewritten},
    promise::{cached_image, kept, object_name},
    scenario::RELEASE,
    storage::{ON_A_VOLUME, uninstall_with_volume, volume},
    until,
};

/// Installs the equivalent of an installation of 1.14; its definitions belong to no release.
async fn install_1_14() {
    let chart = format!("{}/tests/cluster/chart/kuik-1.14", env!("CARGO_MANIFEST_DIR"));
    let install = ["install", RELEASE, &chart, "--namespace", NAMESPACE, "--create-namespace", "--wait"];
    helm(&install).await.unwrap();
}

/// Hands its definitions over to the release, as docs/migration.md says.
async fn hand_over() {
    let (release, namespace) = (
        format!("meta.helm.sh/release-name={RELEASE}"),
        format!("meta.helm.sh/release-namespace={NAMESPACE}"),
    );
    for definition in ["cachedimages.kuik.enix.io", "repositories.kuik.enix.io"] {
        kubectl(&["label", "crd", definition, "app.kubernetes.io/managed-by=Helm"]).await.unwrap();
        kubectl(&["annotate", "crd", definition, &release, &namespace]).await.unwrap();
    }
}

/// Objects as the controllers of 1.14 wrote them: no conditions, a digest of what was there then.
fn objects(image: &str, digest: &str) -> [Value; 2] {
    let name = object_name(image);
    let repository = image.rsplit_once(':').unwrap().0;
    let repository_name = repository.replace([':', '/'], "-");
    let of_repository = json!({
        "apiVersion": "kuik.enix.io/v1alpha1",
        "kind": "Repository",
        "metadata": {"name": repository_name, "finalizers": ["repository.kuik.enix.io/finalizer"]},
        "spec": {"name": repository, "updateInterval": "24h0m0s"},
        "status": {"images": 1, "phase": "Ready"},
    });
    let of_image = json!({
        "apiVersion": "kuik.enix.io/v1alpha1",
        "kind": "CachedImage",
        "metadata": {
            "name": name,
            "labels": {"kuik.enix.io/repository": repository_name},
            "finalizers": ["cachedimage.kuik.enix.io/finalizer"],
        },
        "spec": {"sourceImage": image, "retain": true},
        "status": {"isCached": true, "phase": "Ready", "digest": digest, "usedBy": {"count": 0}},
    });
    [of_repository, of_image]
}

/// Puts an image of a registry that is no more on the volume of Docker's registry, as that was written under kuik 1.14.
async fn leave_on_volume(scenario: &Scenario, image: &Image, name: &str) {
    let storage = PathBuf::from(&scenario.place.volume);
    let options = RegistryOptions { storage: Some(storage), ..RegistryOptions::default() };
    let mut registry = DockerRegistry::start(&options).await.unwrap();
    let [from, to] = [image.reference(), format!("docker://{}/{name}", registry.host())];
    skopeo(["copy", "--quiet", "--preserve-digests", "--dest-tls-verify=false", &from, &to]).await.unwrap();
    registry.stop().await.unwrap();
    // A volume of a provisioner is handed over to `fsGroup`; a folder of a node is not.
    run("chmod", "coreutils", ["-R", "a+rwX", &scenario.place.volume]).await.unwrap();
}

#[tokio::test]
async fn the_volume_of_kuik_1_14_is_served_as_it_is() {
    let mut scenario = Scenario::without_kuik("switch-volume").await;
    scenario.uninstall().await;
    volume(&scenario).await;
    let image = Image::marked(&scenario.place.busybox, "switch-volume");
    let name = "lost.example/switch-volume/app:1";
    leave_on_volume(&scenario, &image, name).await;
    scenario.install(&ON_A_VOLUME).await;
    let pod = scenario.start(&scenario.pod("old", name)).await;
    assert_eq!(image_of(&pod, "main"), rewritten(name));
    assert_eq!(scenario.mark("old", "main").await, "switch-volume");
    let object = kept(name).await;
    assert_eq!(format!("sha256:{}", object["status"]["digest"].as_str().unwrap()), image.digest);
    scenario.delete("old").await;
    uninstall_with_volume(&mut scenario).await;
}

#[tokio::test]
async fn kuik_1_14_is_taken_over_and_given_back() {
    let mut scenario = Scenario::without_kuik("switch").await;
    scenario.uninstall().await;
    scenario.forget_everything().await;
    install_1_14().await;
    let upstream = Upstream::open(&scenario.place).await;
    let image = Image::marked(&scenario.place.busybox, "switch");
    let name = upstream.push(&image, "switch/app:1").await;
    for object in objects(&name, &"0".repeat(64)) {
        apply(std::slice::from_ref(&object)).await.unwrap();
        let patch = json!({"status": object["status"]}).to_string();
        let [kind, name] = [&object["kind"], &object["metadata"]["name"]].map(|text| text.as_str().unwrap());
        kubectl(&["patch", kind, name, "--subresource=status", "--type=merge", "--patch", &patch])
            .await
            .unwrap();
    }
    // A pod that 1.14 rewrote, in its own spelling of ports, and that waits for a proxy.
    let mut pod = scenario.pod("old", &format!("localhost:7439/{}", name.replacen(':', "-", 1)));
    pod["metadata"]["labels"] = json!({"kuik.enix.io/managed": "true"});
    pod["metadata"]["annotations"] =
        json!({"kuik.enix.io/rewrite-images": "true", "original-image-main": name});
    apply(&[pod]).await.unwrap();

    hand_over().await;
    scenario.install(&["proxy.env[0].name=KUIK_LEGACY_PORTS", "proxy.env[0].value=true"]).await;
    scenario.ready("old").await;
    assert_eq!(scenario.mark("old", "main").await, "switch");
    kept(&name).await;
    until("its status is that of the cache now", || async {
        let object = get(&["cachedimage", &object_name(&name)]).await?;
        let status = &object["status"];
        let digest = format!("sha256:{}", status["digest"].as_str().unwrap_or_default());
        assert_eq!(object["spec"]["retain"], true, "{object:#}");
        if digest == image.digest && status["usedBy"]["count"] == 1 {
            Ok(())
        } else {
            Err(object.to_string())
        }
    })
    .await;

    scenario.changed();
    helm(&["rollback", RELEASE, "1", "--namespace", NAMESPACE, "--wait", "--timeout=150s"]).await.unwrap();
    assert_eq!(cached_image(&object_name(&name)).await.unwrap()["spec"]["retain"], true);
    scenario.ready("old").await;
    scenario.uninstall().await;
}
