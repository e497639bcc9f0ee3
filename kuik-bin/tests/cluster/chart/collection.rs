//! Garbage collection of Docker's registry, as the chart renders it: no platform of an image is lost, the registry starts
//! whatever becomes of the collection, and the job needs no other permissions than its own.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use kuik_testkit::{
    SampleImage,
    real::{
        ApiServer, DockerRegistry, InstallSource, KubeUser, RegistryOptions, RegistryVersion, run, skopeo,
    },
};
use serde_json::{Value, json};

use super::template;

const SCHEDULE: &str = "--set-string=registry.garbageCollection.schedule=0 3 * * 0";
const NEVER: &str = "--set-string=registry.garbageCollection.schedule=";
const ON_A_VOLUME: &str = "--set=registry.kind=distribution,registry.persistence.enabled=true";
const IN_A_BUCKET: &str = "--set=registry.kind=distribution,registry.replicas=2,registry.httpSecret=h,\
                           registry.persistence.s3.bucket=b,registry.persistence.s3.accesskey=a,\
                           registry.persistence.s3.secretkey=s";
const UNTAGGED: &str = "--set=registry.garbageCollection.deleteUntagged=true,registry.image.tag=3.1";

/// Returns the objects of a kind in a rendering.
async fn rendered(kind: &str, values: &[&str]) -> Vec<Value> {
    let rendered = template("helm-3", values).await.unwrap();
    let documents = rendered.split("\n---").filter(|document| document.contains("\nkind: "));
    let objects = documents.map(|document| serde_saphyr::from_str::<Value>(document).unwrap());
    objects.filter(|object| object["kind"] == kind).collect()
}

/// Returns the pod of the registry.
async fn registry_pod(values: &[&str]) -> Value {
    let kind = if values.contains(&IN_A_BUCKET) { "Deployment" } else { "StatefulSet" };
    let found = rendered(kind, values).await;
    let workload = found.into_iter().find(|it| it["metadata"]["name"] == "kube-image-keeper-registry");
    workload.unwrap()["spec"]["template"]["spec"].clone()
}

/// Returns the pod of the job.
async fn job_pod(values: &[&str]) -> Value {
    let job = rendered("CronJob", values).await.remove(0);
    job["spec"]["jobTemplate"]["spec"]["template"]["spec"].clone()
}

/// The init container, with folders of this machine in place of those of its pod.
struct Collection {
    folder: tempfile::TempDir,
    script: String,
}

impl Collection {
    async fn of(values: &[&str]) -> Self {
        let pod = registry_pod(values).await;
        let container = &pod["initContainers"][0];
        assert_eq!(container["name"], "collect-garbage");
        let folder = tempfile::tempdir().unwrap();
        for name in ["bin", "collection", "etc"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let script = container["command"][2].as_str().unwrap();
        let script = ["/collection/", "/dev/termination-log", "/etc/docker/registry/"]
            .into_iter()
            .zip(["collection/", "termination-log", "etc/"])
            .fold(script.to_owned(), |script, (there, here)| {
                script.replace(there, folder.path().join(here).to_str().unwrap())
            });
        Self { folder, script }
    }

    /// Makes `program` the registry of its image.
    fn install(&self, program: &Path) {
        symlink(program, self.folder.path().join("bin/registry")).unwrap();
    }

    /// Makes a shell script the registry of its image.
    fn install_script(&self, script: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.folder.path().join("bin/registry");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Runs it; returns its exit code, if it was not killed, and its message for the job.
    fn run(&self, requested: bool) -> (Option<i32>, String) {
        let path = std::env::var("PATH").unwrap();
        let status = Command::new("sh")
            .args(["-c", &self.script])
            .env("PATH", format!("{}:{path}", self.folder.path().join("bin").display()))
            .env("COLLECT_GARBAGE", if requested { "true" } else { "false" })
            .env("OTEL_TRACES_EXPORTER", "none")
            .status()
            .unwrap();
        let message = fs::read_to_string(self.folder.path().join("termination-log"));
        (status.code(), message.unwrap_or_default())
    }
}

fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file()).unwrap()
}

/// Bytes of the blobs of a registry's storage.
fn size(storage: &Path) -> u64 {
    fs::read_dir(storage)
        .into_iter()
        .flatten()
        .map(|entry| {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() { size(&entry.path()) } else { entry.metadata().unwrap().len() }
        })
        .sum()
}

/// The result of a collection by Docker's registry.
#[derive(Debug, PartialEq)]
struct Left {
    /// Whether all platforms of a tagged index can be pulled.
    tagged: bool,
    /// Whether the bytes of an index that lost its tag were freed.
    freed: bool,
}

/// Pushes two multi-platform images, removes the tag of one, and collects with the rendered init container.
async fn collect(version: RegistryVersion, name: &str, values: &[&str], untagged: bool) -> Left {
    let mut collection = Collection::of(values).await;
    if untagged {
        let plain = "registry garbage-collect \"";
        assert!(collection.script.contains(plain), "{}", collection.script);
        collection.script = collection.script.replace(plain, "registry garbage-collect --delete-untagged \"");
    }
    collection.install(&program(name));
    let storage = collection.folder.path().join("storage");
    let config = format!(
        "version: 0.1\nlog: {{level: warn}}\nstorage: {{filesystem: {{rootdirectory: {storage:?}}}}}\n"
    );
    fs::write(collection.folder.path().join("etc/config.yml"), config).unwrap();
    let options = RegistryOptions { storage: Some(storage.clone()), version, ..Default::default() };
    let mut registry = DockerRegistry::start(&options).await.unwrap();
    for (tag, seed) in [("stays", 1), ("goes", 100)] {
        let layout = tempfile::tempdir().unwrap();
        let image = SampleImage::builder().seed(seed).platform("linux", "amd64").platform("linux", "arm64");
        let image = image.layer(200_000).build();
        image.write_layout(layout.path(), tag).unwrap();
        let from = format!("oci:{}:{tag}", layout.path().display());
        let to = format!("docker://{}/multi:{tag}", registry.host());
        skopeo(["copy", "--all", "--preserve-digests", "--dest-tls-verify=false", &from, &to]).await.unwrap();
    }
    let before = size(&storage);
    // As the controllers do: the tag goes, and nothing else.
    let links = storage.join("docker/registry/v2/repositories/multi/_manifests/tags/goes");
    fs::remove_dir_all(links).unwrap();
    registry.stop().await.unwrap();
    assert_eq!(collection.run(true), (Some(0), "ok".to_owned()), "{version:?}");
    registry.resume().await.unwrap();

    let target = tempfile::tempdir().unwrap();
    let from = format!("docker://{}/multi:stays", registry.host());
    let to = format!("oci:{}:stays", target.path().display());
    let pulled = skopeo(["copy", "--all", "--src-tls-verify=false", &from, &to]).await;
    let after = size(&storage);
    println!("{version:?}: {before} bytes before the collection, {after} after it");
    Left { tagged: pulled.is_ok(), freed: after < before * 6 / 10 }
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn collection_keeps_all_platforms_and_version_3_frees_untagged_images() {
    let (v2, v3) = ((RegistryVersion::V2, "docker-registry"), (RegistryVersion::V3, "docker-registry-3"));
    let kept = Left { tagged: true, freed: false };
    for (version, name) in [v2, v3] {
        assert_eq!(collect(version, name, &[ON_A_VOLUME, SCHEDULE], false).await, kept, "{name}");
    }
    let untagged = [ON_A_VOLUME, SCHEDULE, UNTAGGED];
    let freed = Left { tagged: true, freed: true };
    assert_eq!(collect(v3.0, v3.1, &untagged, false).await, freed);
}

/// The reason why the chart refuses `deleteUntagged` with it.
#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn version_2_loses_the_platforms_of_an_index_if_it_deletes_untagged_manifests() {
    let left = collect(RegistryVersion::V2, "docker-registry", &[ON_A_VOLUME, SCHEDULE], true).await;
    assert_eq!(left, Left { tagged: false, freed: true });
    for tag in ["", "2", "2.8", "2.8.3", "latest", "edge", "3.0.0-rc.1", "4.0.0"] {
        let values = ["--set=registry.kind=distribution,registry.garbageCollection.deleteUntagged=true"];
        let tag = format!("--set-string=registry.image.tag={tag}");
        let error = template("helm-3", &[values[0], &tag]).await.unwrap_err().to_string();
        assert!(error.contains("set registry.image.tag to a release of version 3"), "{tag}: {error}");
    }
    let pinned = format!("3.1.2@sha256:{}", "0".repeat(64));
    for tag in ["3", "3.0", "3.0.0", "v3.1.2", "3.1-alpine", &pinned] {
        let tag = format!("--set-string=registry.image.tag={tag}");
        let pod = registry_pod(&[ON_A_VOLUME, SCHEDULE, UNTAGGED, &tag]).await;
        assert!(pod["initContainers"][0]["command"][2].as_str().unwrap().contains("--delete-untagged"));
    }
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn registry_starts_after_a_collection_that_failed_hung_or_was_killed() {
    let values = [ON_A_VOLUME, SCHEDULE, "--set=registry.garbageCollection.activeDeadlineSeconds=1"];
    let failed = (Some(0), "failed".to_owned());
    for broken in ["exit 3", "exec sleep 600"] {
        let collection = Collection::of(&values).await;
        collection.install_script(broken);
        assert_eq!(collection.run(true), failed, "{broken}");
    }

    // Killed with its shell, as for too much memory; kubelet runs it again in the same pod.
    let collection = Collection::of(&values).await;
    collection.install_script("kill -9 $(cut -d ' ' -f 4 /proc/$PPID/stat) $PPID; exit 1");
    assert_eq!(collection.run(true), (None, String::new()));
    assert_eq!(collection.run(true), failed);

    // Not requested: an ordinary start.
    let collection = Collection::of(&values).await;
    collection.install_script("exit 3");
    assert_eq!(collection.run(false), (Some(0), "ok".to_owned()));
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn collection_runs_as_the_registry_does() {
    let values = [
        IN_A_BUCKET,
        SCHEDULE,
        "--set=registry.env[0].name=HTTPS_PROXY,registry.env[0].value=http://proxy.example:3128",
        "--set=registry.securityContext.runAsUser=7,registry.podSecurityContext.runAsUser=7",
        "--set=rootCertificateAuthorities.secretName=s,rootCertificateAuthorities.keys={a.pem}",
    ];
    let pod = registry_pod(&values).await;
    assert_eq!(pod["serviceAccountName"], "kube-image-keeper-registry");
    let (collection, registry) = (&pod["initContainers"][0], &pod["containers"][0]);
    for field in ["image", "imagePullPolicy", "securityContext"] {
        assert_eq!(collection[field], registry[field], "{field}");
    }
    let (mut environment, own) =
        (collection["env"].as_array().unwrap().clone(), registry["env"].as_array().unwrap());
    assert_eq!(environment.pop().unwrap()["name"], "COLLECT_GARBAGE");
    assert_eq!(environment, *own);
    let mounts = registry["volumeMounts"].as_array().unwrap();
    assert!(mounts.iter().all(|mount| collection["volumeMounts"].as_array().unwrap().contains(mount)));

    // A second writer would lose content: the old pod goes first.
    let found = rendered("Deployment", &values).await;
    let workload = found.iter().find(|it| it["metadata"]["name"] == "kube-image-keeper-registry").unwrap();
    let update = &workload["spec"]["strategy"]["rollingUpdate"];
    assert_eq!(*update, json!({"maxSurge": 0, "maxUnavailable": 1}));
    assert!(collection["command"][2].as_str().unwrap().contains("sleep 30"));
    assert!(registry_pod(&[ON_A_VOLUME, NEVER]).await.get("initContainers").is_none());
    // Nothing to collect in a volume that ends with its pod.
    assert!(
        registry_pod(&["--set=registry.kind=distribution", SCHEDULE]).await.get("initContainers").is_none()
    );
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn job_has_pull_secrets_contexts_and_placement() {
    let registry = [
        ON_A_VOLUME,
        SCHEDULE,
        "--set=registry.imagePullSecrets[0].name=of-registry,registry.nodeSelector.disk=ssd,registry.tolerations[0].operator=Exists",
    ];
    let pod = job_pod(&registry).await;
    assert_eq!(pod["imagePullSecrets"], json!([{"name": "of-registry"}]));
    assert_eq!(pod["nodeSelector"], json!({"disk": "ssd", "kubernetes.io/os": "linux"}));
    assert_eq!(pod["tolerations"], json!([{"operator": "Exists"}]));

    let own = "--set=registry.garbageCollection.imagePullSecrets[0].name=own,registry.garbageCollection.nodeSelector.disk=hdd,\
               registry.garbageCollection.podSecurityContext.runAsUser=8,registry.garbageCollection.securityContext.runAsUser=9";
    let pod = job_pod(&[&registry[..], &[own]].concat()).await;
    assert_eq!(pod["imagePullSecrets"], json!([{"name": "own"}]));
    assert_eq!(pod["nodeSelector"], json!({"disk": "hdd", "kubernetes.io/os": "linux"}));
    assert_eq!(pod["securityContext"], json!({"runAsUser": 8}));
    let containers = [&pod["initContainers"], &pod["containers"]];
    for container in containers.into_iter().flat_map(|list| list.as_array().unwrap()) {
        assert_eq!(container["securityContext"], json!({"runAsUser": 9}));
    }
}

/// A cluster without nodes and controllers, in which the job's steps are run by hand.
struct Steps {
    server: ApiServer,
    account: KubeUser,
    steps: Vec<(String, Vec<String>)>,
    workload: &'static str,
}

impl Steps {
    async fn of(values: &[&str], workload: &'static str) -> Self {
        let server = ApiServer::start().await.unwrap();
        let admin = server.admin();
        admin.kubectl(["create", "namespace", "kuik-system"]).await.unwrap();
        for kind in ["ConfigMap", "ServiceAccount", "Role", "RoleBinding", "StatefulSet", "Deployment"] {
            for object in rendered(kind, values).await {
                admin.apply(&object.to_string()).await.unwrap();
            }
        }
        let account = server.service_account("kuik-system", "kube-image-keeper-registry-gc").await.unwrap();
        let pod = job_pod(values).await;
        let lists = [&pod["initContainers"], &pod["containers"]].map(|list| list.as_array().unwrap().clone());
        let steps = lists.into_iter().flatten().map(|container| {
            let words = container["command"].as_array().unwrap().iter().skip(1);
            let words = words.map(|word| word.as_str().unwrap().replace("$(POD_NAME)", "collect-x7k"));
            (container["name"].as_str().unwrap().to_owned(), words.collect())
        });
        let steps = steps.collect();
        Self { server, account, steps, workload }
    }

    /// Runs a step as the job does; `timeout` in place of its own.
    async fn run(&self, name: &str, timeout: Option<&str>) -> Result<String, String> {
        let (_, words) = self.steps.iter().find(|(step, _)| step == name).unwrap();
        let words = words.iter().map(|word| match timeout {
            Some(timeout) if word.starts_with("--timeout=") => format!("--timeout={timeout}"),
            _ => word.clone(),
        });
        let all = ["--namespace".to_owned(), "kuik-system".to_owned()].into_iter().chain(words);
        self.account.kubectl(all).await.map_err(|error| error.to_string())
    }

    async fn get(&self, object: &str) -> Value {
        let told = ["get", object, "--namespace", "kuik-system", "--output=json"];
        serde_json::from_str(&self.server.admin().kubectl(told).await.unwrap()).unwrap()
    }

    async fn requested(&self) -> String {
        let map = self.get("configmap/kube-image-keeper-registry-gc").await;
        map["data"]["collect"].as_str().unwrap().to_owned()
    }

    /// Writes the status that controllers would write once one pod of the new revision serves.
    async fn roll_out(&self) {
        let generation = self.get(self.workload).await["metadata"]["generation"].clone();
        let status = json!({"status": {"observedGeneration": generation, "replicas": 1, "readyReplicas": 1,
            "updatedReplicas": 1, "availableReplicas": 1, "currentRevision": "new", "updateRevision": "new",
            "currentReplicas": 1}});
        self.patch_status(self.workload, &status).await;
    }

    async fn patch_status(&self, object: &str, status: &Value) {
        let patch = format!("--patch={status}");
        let arguments =
            ["patch", object, "--namespace", "kuik-system", "--subresource=status", "--type=merge", &patch];
        self.server.admin().kubectl(arguments).await.unwrap();
    }

    /// Makes a pod of the registry, whose init container left this message.
    async fn pod(&self, name: &str, message: &str) {
        let labels = json!({"app.kubernetes.io/instance": "kube-image-keeper", "app.kubernetes.io/component": "registry"});
        let pod = json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "kuik-system", "labels": labels},
            "spec": {"automountServiceAccountToken": false, "containers": [{"name": "registry", "image": "registry"}]}});
        self.server.admin().apply(&pod.to_string()).await.unwrap();
        let terminated = json!({"exitCode": 0, "message": message});
        let state = |name: &str, state: Value| {
            json!({"name": name, "image": "", "imageID": "", "ready": true,
            "restartCount": 0, "state": state})
        };
        let init = [
            state("injected", json!({"running": {}})),
            state("collect-garbage", json!({"terminated": terminated})),
        ];
        self.patch_status(&format!("pod/{name}"), &json!({"status": {"initContainerStatuses": init}})).await;
    }
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn job_restarts_the_registry_and_fails_if_the_collection_failed() {
    let steps = Steps::of(&[ON_A_VOLUME, SCHEDULE], "statefulset/kube-image-keeper-registry").await;
    let names: Vec<_> = steps.steps.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["request", "restart", "wait", "finish", "outcome"]);
    assert_eq!(steps.requested().await, "false");

    steps.run("request", None).await.unwrap();
    assert_eq!(steps.requested().await, "true");
    steps.roll_out().await;
    steps.run("restart", None).await.unwrap();
    let workload = steps.get(steps.workload).await;
    assert_eq!(workload["spec"]["replicas"], 1);
    let pod = &workload["spec"]["template"]["metadata"]["annotations"];
    assert_eq!(*pod, json!({"kuik.enix.io/collected-by": "collect-x7k"}));
    steps.run("wait", Some("1s")).await.unwrap_err();
    steps.roll_out().await;
    steps.run("wait", None).await.unwrap();
    steps.run("finish", None).await.unwrap();
    assert_eq!(steps.requested().await, "false");

    steps.pod("kube-image-keeper-registry-0", "failed").await;
    steps.run("outcome", Some("1s")).await.unwrap_err();
    steps.pod("kube-image-keeper-registry-0", "ok").await;
    steps.run("outcome", None).await.unwrap();
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn job_leaves_one_replica_to_collect_and_brings_all_back() {
    let steps = Steps::of(&[IN_A_BUCKET, SCHEDULE], "deployment/kube-image-keeper-registry").await;
    let replicas = || async { steps.get(steps.workload).await["spec"]["replicas"].clone() };
    assert_eq!(replicas().await, 2);
    for (step, left) in [("request", 2), ("restart", 1)] {
        steps.run(step, None).await.unwrap();
        assert_eq!(replicas().await, left, "{step}");
    }
    steps.roll_out().await;
    for (step, left) in [("wait", 1), ("finish", 1), ("scale", 2)] {
        steps.run(step, None).await.unwrap();
        assert_eq!(replicas().await, left, "{step}");
    }
}

/// The API server adds settings of its own, and refuses some combinations with them, such as `Recreate`.
#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn schedule_can_be_added_to_replicas_that_run_and_removed() {
    let server = ApiServer::start().await.unwrap();
    let kubeconfig = server.admin().kubeconfig().to_str().unwrap().to_owned();
    for helm in ["helm-3", "helm-4"] {
        for values in [[IN_A_BUCKET, NEVER], [IN_A_BUCKET, SCHEDULE], [IN_A_BUCKET, NEVER]] {
            let chart = super::chart();
            let common = ["upgrade", "--install", helm, &chart, "--namespace", helm, "--create-namespace"];
            let more = ["--kubeconfig", &kubeconfig, "--set=crds.install=false,proxy.mode=containerd"];
            run(helm, InstallSource::BuiltFromGo, [&common[..], &more, &values].concat()).await.unwrap();
        }
    }
}
