//! `kuik-webhook` in front of a real API server, with its own certificate.

use std::fs;

use crate::support::{Kuik, eventually, output, pod, webhook_configuration};
use kuik_testkit::real::{ApiServer, KubeUser, RealPartError, free_address};
use serde_json::{Value, json};

/// An API server that asks a webhook at `port` of this machine.
fn configuration(port: u16) -> String {
    webhook_configuration("kuik", "kuik-webhook", port)
}

/// User of the webhook, with exactly the roles of `kuik rbac`.
const ACCOUNT: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Namespace
metadata: {name: kuik-system}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: webhook, namespace: kuik-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: webhook, namespace: kuik-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: kuik-webhook}
subjects: [{kind: ServiceAccount, namespace: kuik-system, name: webhook}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: webhook}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: kuik-webhook}
subjects: [{kind: ServiceAccount, namespace: kuik-system, name: webhook}]
";

/// Two replicas of the webhook and an API server that asks one of them.
struct Cluster {
    server: ApiServer,
    replicas: Vec<Kuik>,
    folder: tempfile::TempDir,
}

impl Cluster {
    /// The minor release of Kubernetes.
    async fn minor(&self) -> u32 {
        let versions = self.admin().kubectl(["version", "--output=json"]).await.unwrap();
        let versions: Value = serde_json::from_str(&versions).unwrap();
        versions["serverVersion"]["minor"].as_str().unwrap().parse().unwrap()
    }

    /// A container that is added to a running pod is rewritten as well.
    async fn debug_container(&self, mut pod: Value) {
        pod["spec"]["ephemeralContainers"] = json!([{ "name": "debug", "image": "tools:1" }]);
        let file = self.file(&pod);
        let raw = "/api/v1/namespaces/shop/pods/whole/ephemeralcontainers";
        self.admin().kubectl(["replace", "--raw", raw, "--filename", &file]).await.unwrap();
        let now = self.get(&["pod", "whole", "--namespace=shop"]).await;
        assert_eq!(now["spec"]["ephemeralContainers"][0]["image"], "localhost:7439/tools:1");
    }

    async fn start() -> Self {
        let server = ApiServer::start().await.unwrap();
        let admin = server.admin();
        let crds = output(&["crds"]).await;
        admin.apply(std::str::from_utf8(&crds.stdout).unwrap()).await.unwrap();
        admin.apply(ACCOUNT).await.unwrap();
        let names = ["rbac", "--certificate-secret=kuik-certificate", "--webhook-configuration=kuik"];
        let roles = output(&names).await;
        admin.apply(std::str::from_utf8(&roles.stdout).unwrap()).await.unwrap();
        let wait = ["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"];
        admin.kubectl(wait).await.unwrap();
        let [first, second] = [free_address().await.unwrap(), free_address().await.unwrap()];
        admin.apply(&configuration(first.port())).await.unwrap();

        let account = server.service_account("kuik-system", "webhook").await.unwrap();
        let kubeconfig = account.kubeconfig().to_str().unwrap().to_owned();
        let start = |address: String| {
            let environment = kubeconfig.clone();
            async move {
                let arguments = [
                    "--bind-address",
                    &address,
                    "--proxy-port",
                    "7439",
                    "--health-probe-bind-address",
                    "0",
                    "--namespace",
                    "kuik-system",
                    "--certificate-secret",
                    "kuik-certificate",
                    "--webhook-configuration",
                    "kuik",
                    "--webhook-service",
                    "kuik-webhook",
                    "--ignore-images",
                    "^ignored",
                ];
                Kuik::webhook(&arguments, &[("KUBECONFIG", &environment)]).await
            }
        };
        let (first, second) = tokio::join!(start(first.to_string()), start(second.to_string()));
        let cluster = Self { server, replicas: vec![first, second], folder: tempfile::tempdir().unwrap() };
        // API servers receive a configuration through a watch.
        eventually("the API server asks the webhook", async || {
            let made = cluster.create(&pod("probe", "nginx:1"), &["--dry-run=server"]).await.unwrap();
            made.pointer("/metadata/labels/kuik.enix.io~1managed").is_some()
        })
        .await;
        cluster
    }

    fn admin(&self) -> &KubeUser {
        self.server.admin()
    }

    fn file(&self, object: &Value) -> String {
        let path = self.folder.path().join("object.json");
        fs::write(&path, object.to_string()).unwrap();
        path.display().to_string()
    }

    /// Makes an object; what was made.
    async fn create(&self, object: &Value, arguments: &[&str]) -> Result<Value, RealPartError> {
        let file = self.file(object);
        let all = [&["create", "--output=json", "--filename", &file], arguments].concat();
        Ok(serde_json::from_str(&self.admin().kubectl(all).await?).unwrap())
    }

    async fn get(&self, arguments: &[&str]) -> Value {
        let all = [&["get", "--output=json"], arguments].concat();
        serde_json::from_str(&self.admin().kubectl(all).await.unwrap()).unwrap()
    }

    async fn bundles(&self) -> Vec<Value> {
        let found = self.get(&["mutatingwebhookconfiguration", "kuik"]).await;
        let webhooks = found["webhooks"].as_array().unwrap();
        webhooks.iter().map(|webhook| webhook["clientConfig"]["caBundle"].clone()).collect()
    }
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn a_real_api_server_has_pods_rewritten_and_wrong_images_refused() {
    let cluster = Cluster::start().await;

    // Everything that names an image, and a dry run before it.
    let mut whole = pod("whole", "nginx:1.25");
    let recent = cluster.minor().await >= 35;
    whole["spec"]["initContainers"] =
        json!([{ "name": "setup", "image": "busybox:1" }, { "name": "mesh", "image": "quay.io/mesh:2" }]);
    if recent {
        whole["spec"]["initContainers"][1]["restartPolicy"] = json!("Always");
        whole["spec"]["volumes"] =
            json!([{ "name": "model", "image": { "reference": "ghcr.io/m/weights:v1" } }]);
    } else {
        println!(
            "not run, because this Kubernetes may have none: sidecars, volumes of images, ephemeral containers"
        );
    }
    let dry = cluster.create(&whole, &["--dry-run=server"]).await.unwrap();
    let made = cluster.create(&whole, &[]).await.unwrap();
    assert_eq!(dry["spec"]["containers"], made["spec"]["containers"]);
    assert_eq!(made["spec"]["containers"][0]["image"], "localhost:7439/nginx:1.25");
    assert_eq!(made["spec"]["initContainers"][0]["image"], "localhost:7439/busybox:1");
    assert_eq!(made["spec"]["initContainers"][1]["image"], "localhost:7439/quay.io/mesh:2");
    if recent {
        let volume = &made["spec"]["volumes"][0];
        assert_eq!(volume["image"]["reference"], "localhost:7439/ghcr.io/m/weights:v1");
    }
    assert_eq!(made["metadata"]["labels"], json!({ "kuik.enix.io/managed": "true" }));
    let annotations = json!({
        "kuik.enix.io/rewrite-images": "true", "original-image-web": "nginx:1.25",
        "original-init-image-setup": "busybox:1", "original-init-image-mesh": "quay.io/mesh:2",
    });
    assert_eq!(made["metadata"]["annotations"], annotations);

    // An image that is set, as a person does it.
    let set = ["set", "image", "--namespace=shop", "pod/whole", "web=nginx:1.27"];
    cluster.admin().kubectl(set).await.unwrap();
    let now = cluster.get(&["pod", "whole", "--namespace=shop"]).await;
    assert_eq!(now["spec"]["containers"][0]["image"], "localhost:7439/nginx:1.27");
    assert_eq!(now["metadata"]["annotations"]["original-image-web"], "nginx:1.27");

    if recent {
        cluster.debug_container(now).await;
    }

    // Pods that are not rewritten.
    let mut own = pod("own", "nginx:1.25");
    own["metadata"]["namespace"] = json!("kuik-system");
    let mut out = pod("out", "nginx:1.25");
    out["metadata"]["labels"] = json!({ "kube-image-keeper.enix.io/image-caching-policy": "ignore" });
    for alone in [own, out] {
        let made = cluster.create(&alone, &[]).await.unwrap();
        assert_eq!(made["spec"]["containers"][0]["image"], "nginx:1.25");
        assert!(made.pointer("/metadata/annotations").is_none());
    }
    let many: Vec<_> =
        (0..200).map(|n| json!({ "name": format!("c{n}"), "image": format!("quay.io/a/b{n}:1") })).collect();
    let mut large = pod("large", "nginx");
    large["spec"]["containers"] = json!(many);
    let made = cluster.create(&large, &[]).await.unwrap();
    assert_eq!(made["spec"]["containers"][199]["image"], "localhost:7439/quay.io/a/b199:1");

    // CachedImages.
    let image = |name: &str, image: &str| {
        json!({
            "apiVersion": "kuik.enix.io/v1alpha1", "kind": "CachedImage", "metadata": { "name": name },
            "spec": { "sourceImage": image },
        })
    };
    let made = cluster.create(&image("docker.io-library-nginx-1.25", "nginx:1.25"), &[]).await.unwrap();
    assert_eq!(made["metadata"]["labels"]["kuik.enix.io/repository"], "docker.io-library-nginx");
    let refused = cluster.create(&image("wrong", "nginx:1.25:2"), &[]).await.unwrap_err().to_string();
    let words = kuik_core::reference::ImageReference::parse("nginx:1.25:2").unwrap_err().to_string();
    assert!(refused.contains(&words) && refused.contains("mcachedimage.kb.io"), "{refused}");
    for (name, wrong) in [("space", "nginx latest"), ("empty", "")] {
        let refused = cluster.create(&image(name, wrong), &[]).await.unwrap_err().to_string();
        assert!(refused.contains("spec.sourceImage"), "{refused}");
    }
    let table = cluster.admin().kubectl(["get", "ci"]).await.unwrap();
    let columns: Vec<_> = table.lines().next().unwrap().split("  ").filter(|word| !word.is_empty()).collect();
    let columns: Vec<_> = columns.into_iter().map(str::trim).collect();
    assert_eq!(columns, ["NAME", "STATUS", "CACHED", "RETAIN", "EXPIRES AT", "PODS COUNT", "AGE"]);
}

/// With the defaults that an API server adds before it asks a webhook, such as tolerations.
#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn pods_that_cannot_use_the_proxy_are_created_unchanged() {
    let cluster = Cluster::start().await;
    let with = |name: &str, fields: Value| {
        let mut pod = pod(name, "nginx:1.25");
        for (key, value) in fields.as_object().unwrap() {
            pod["spec"][key] = value.clone();
        }
        pod
    };
    let everything = json!([{ "operator": "Exists", "effect": "NoSchedule" }]);
    let mut unchanged = vec![
        with("critical", json!({ "priorityClassName": "system-node-critical" })),
        with("network", json!({ "hostNetwork": true, "tolerations": everything })),
        with("selector", json!({ "nodeSelector": { "kubernetes.io/os": "windows" } })),
        with("fargate", json!({ "nodeSelector": { "eks.amazonaws.com/compute-type": "fargate" } })),
    ];
    if cluster.minor().await >= 25 {
        unchanged.push(with("os", json!({ "os": { "name": "windows" } })));
    }
    for pod in &unchanged {
        let made = cluster.create(pod, &[]).await.unwrap();
        assert_eq!(made["spec"]["containers"][0]["image"], "nginx:1.25", "{made}");
        let metadata = &made["metadata"];
        assert!(metadata.get("labels").is_none() && metadata.get("annotations").is_none(), "{metadata}");
    }

    // Host network alone, and the tolerations that every pod gets.
    let made = cluster.create(&with("agent", json!({ "hostNetwork": true })), &[]).await.unwrap();
    assert!(made["spec"]["tolerations"].to_string().contains("node.kubernetes.io/not-ready"), "{made}");
    assert_eq!(made["spec"]["containers"][0]["image"], "localhost:7439/nginx:1.25");

    let made = cluster.create(&pod("loopback", "localhost:32000/app:1"), &[]).await.unwrap();
    assert_eq!(made["spec"]["containers"][0]["image"], "localhost:32000/app:1");
    assert_eq!(made["metadata"]["annotations"], json!({ "kuik.enix.io/rewrite-images": "true" }));

    // From a backup of the time when the proxy had another port.
    let mut restored = pod("restored", "localhost:7440/nginx:1.25");
    restored["metadata"]["labels"] = json!({ "kuik.enix.io/managed": "true" });
    let annotations = json!({ "kuik.enix.io/rewrite-images": "true", "original-image-web": "nginx:1.25" });
    restored["metadata"]["annotations"] = annotations.clone();
    let made = cluster.create(&restored, &[]).await.unwrap();
    assert_eq!(made["spec"]["containers"][0]["image"], "localhost:7439/nginx:1.25");
    assert_eq!(made["metadata"]["annotations"], annotations);
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn replicas_share_a_certificate_and_publish_its_ca_bundle() {
    let mut cluster = Cluster::start().await;
    let secret = ["secret", "kuik-certificate", "--namespace=kuik-system"];
    let first = cluster.get(&secret).await["data"].clone();
    let bundles = cluster.bundles().await;
    assert!(bundles.iter().all(|bundle| *bundle == first["ca.crt"]), "{bundles:?}");

    // The configuration is applied again without its caBundle: it is repaired, and pods are created meanwhile.
    let port = cluster.replicas[0].address().port();
    let documents = configuration(port);
    let rendered: Value = serde_json::from_str(documents.split("---").nth(1).unwrap()).unwrap();
    let file = cluster.file(&rendered);
    cluster.admin().kubectl(["replace", "--filename", &file]).await.unwrap();
    let unseen = cluster.create(&pod("meanwhile", "nginx:1.25"), &[]).await;
    assert!(unseen.is_ok(), "a pod is never refused");
    eventually("the bundle is back", async || cluster.bundles().await == bundles).await;
    assert_eq!(cluster.get(&secret).await["data"], first, "no certificate had to be made for that");

    // Without a webhook there are pods as they are written.
    let gone = cluster.replicas.remove(0);
    gone.kill().await;
    let made = cluster.create(&pod("without", "nginx:1.25"), &[]).await.unwrap();
    assert_eq!(made["spec"]["containers"][0]["image"], "nginx:1.25");
    let other = cluster.replicas[0].address().port();
    cluster.admin().apply(&configuration(other)).await.ok();
    let moved: Value = serde_json::from_str(configuration(other).split("---").nth(1).unwrap()).unwrap();
    let file = cluster.file(&moved);
    cluster.admin().kubectl(["replace", "--filename", &file]).await.unwrap();
    eventually("the other replica is asked, with the same certificate", async || {
        let made = cluster.create(&pod("probe", "nginx:1"), &["--dry-run=server"]).await.unwrap();
        made["spec"]["containers"][0]["image"] == "localhost:7439/nginx:1"
    })
    .await;
    assert_eq!(cluster.get(&secret).await["data"], first);
}
