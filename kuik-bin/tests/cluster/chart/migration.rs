//! Values files of kuik 1.14: their settings keep their meaning, are mapped, or are refused with a hint.

use serde_json::{Value, json};

use super::template;

/// Returns the objects of a rendering.
async fn objects(values: &[&str]) -> Vec<Value> {
    let rendered = template("helm-3", values).await.unwrap();
    parse(&rendered)
}

pub(super) fn parse(rendered: &str) -> Vec<Value> {
    let documents = rendered.split("\n---").filter(|document| document.contains("\nkind: "));
    documents.map(|document| serde_saphyr::from_str(document).unwrap()).collect()
}

/// Returns the first container of the workload whose name ends in `-COMPONENT`.
fn container(objects: &[Value], component: &str) -> Value {
    let of = |object: &&Value| {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        name.ends_with(&format!("-{component}"))
            && object["spec"]["template"]["spec"]["containers"].is_array()
    };
    objects.iter().find(of).unwrap()["spec"]["template"]["spec"]["containers"][0].clone()
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn probes_of_1_14_reach_the_ports_and_paths_of_this_version() {
    let values = [
        "--set=proxy.readinessProbe.httpGet.port=7439,proxy.livenessProbe.httpGet.port=7439",
        "--set=proxy.hostNetwork=true,proxy.metricsPort=8099,proxy.readinessProbe.periodSeconds=7",
        "--set=registry.readinessProbe.httpGet.path=/v2/,registry.readinessProbe.httpGet.port=5000",
        "--set=registry.livenessProbe.httpGet.path=/v2/,registry.livenessProbe.httpGet.port=5000",
    ];
    let found = objects(&values).await;
    let (proxy, registry) = (container(&found, "proxy"), container(&found, "registry"));
    let probe = |path: &str, port: u16| json!({"httpGet": {"path": path, "port": port}});
    // In the host network, metrics are on the loopback address.
    let local = |path: &str| json!({"host": "127.0.0.1", "path": path, "port": 8099});
    assert_eq!(proxy["livenessProbe"], json!({"httpGet": local("/healthz")}));
    assert_eq!(proxy["readinessProbe"]["httpGet"], local("/readyz"));
    assert_eq!(proxy["readinessProbe"]["periodSeconds"], 7);
    assert_eq!(registry["readinessProbe"], probe("/readyz", 5000));
    assert_eq!(registry["livenessProbe"], probe("/healthz", 5000));

    // Docker's registry has no other path, and what a user chose otherwise stays.
    let docker = "--set=registry.kind=distribution";
    let registry = container(&objects(&[docker, values[2]]).await, "registry");
    assert_eq!(registry["readinessProbe"], probe("/v2/", 5000));
    let own = "--set=registry.readinessProbe.httpGet.path=/metrics,registry.readinessProbe.httpGet.port=5000";
    assert_eq!(container(&objects(&[own]).await, "registry")["readinessProbe"], probe("/metrics", 5000));
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn azure_secrets_of_1_14_are_read_by_their_keys() {
    let secret = "--set=registry.persistence.azure.container=c,registry.persistence.azureExistingSecret=s";
    let named = "--set=registry.persistence.azure.accountname=n";
    let key = |key: &str| json!({"secretKeyRef": {"name": "s", "key": key}});
    for (kind, name, password) in [
        ("kuik", "AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY"),
        ("distribution", "REGISTRY_STORAGE_AZURE_ACCOUNTNAME", "REGISTRY_STORAGE_AZURE_ACCOUNTKEY"),
    ] {
        let kind = format!("--set=registry.kind={kind}");
        let environment = async |values: &[&str]| {
            let registry = container(&objects(values).await, "registry");
            let list = registry["env"].as_array().unwrap().clone();
            move |name: &str| list.iter().find(|it| it["name"] == name).unwrap().clone()
        };
        let get = environment(&[&kind, secret]).await;
        assert_eq!(get(name)["valueFrom"], key("accountname"));
        assert_eq!(get(password)["valueFrom"], key("accountkey"));
        let get = environment(&[&kind, secret, named]).await;
        assert_eq!(get(name)["value"], "n");
        assert_eq!(get(password)["valueFrom"], key("accountKey"));
    }
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn service_accounts_are_created_unless_told_otherwise() {
    let accounts = async |values: &[&str]| {
        let found = objects(values).await;
        let accounts = found.into_iter().filter(|object| object["kind"] == "ServiceAccount");
        let mut names: Vec<_> =
            accounts.map(|account| account["metadata"]["name"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    let named = "--set=serviceAccount.name=one,registry.serviceAccount.name=two";
    let proxy = "kube-image-keeper-proxy";
    assert_eq!(accounts(&[named]).await, [proxy, "one", "two"]);
    let not = "--set=serviceAccount.create=false,registry.serviceAccount.create=false";
    assert_eq!(accounts(&[named, not]).await, [proxy]);
    let same = "--set=serviceAccount.name=one,registry.serviceAccount.name=one";
    assert_eq!(accounts(&[same]).await, [proxy, "one"]);
    let labels = "--set=serviceAccount.extraLabels.team=a,registry.serviceAccount.extraLabels.team=b";
    let found = objects(&[named, labels]).await;
    for (name, team) in [("one", "a"), ("two", "b")] {
        let account = |it: &&Value| it["kind"] == "ServiceAccount" && it["metadata"]["name"] == name;
        assert_eq!(found.iter().find(account).unwrap()["metadata"]["labels"]["team"], team);
    }
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn images_of_1_14_are_refused() {
    for part in ["image", "controllers.image", "proxy.image"] {
        let value = format!("--set={part}.repository=mirror.example/enix/kube-image-keeper");
        let error = template("helm-3", &[&value]).await.unwrap_err().to_string();
        assert!(error.contains(&format!("kuik 1.x: remove {part}")), "{error}");
    }
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn names_are_those_of_1_14_and_fit() {
    let names = async |length: usize| {
        let name = format!("--set=fullnameOverride={}", "n".repeat(length));
        let schedule = "--set-string=registry.garbageCollection.schedule=0 3 * * 0";
        let docker = "--set=registry.kind=distribution,registry.persistence.enabled=true";
        let found = objects(&[&name, schedule, docker]).await;
        let named = |kind: &str| {
            let object = found.iter().filter(|object| object["kind"] == kind);
            object.map(|it| it["metadata"]["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        (named("StatefulSet"), named("CronJob"), named("Service"))
    };
    // The longest that works with 1.14: the name and a hash are a label of its pods.
    let (workload, job, services) = names(43).await;
    assert_eq!(workload, [format!("{}-registry", "n".repeat(43))]);
    assert!(job[0].len() <= 52 && services.iter().all(|name| name.len() <= 63), "{job:?} {services:?}");
    let (workload, ..) = names(60).await;
    assert!(workload[0].len() + "-0123456789".len() <= 63, "{workload:?}");
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn values_that_look_like_other_types_stay_texts() {
    for namespace in ["2048", "on", "null"] {
        let values = [
            "--namespace",
            namespace,
            "--set-json=controllers.webhook.ignoredNamespaces=[\"1e3\",\"off\"]",
            "--set-json=controllers.env=[{\"name\":\"A\",\"value\":true},{\"name\":\"B\",\"value\":1},{\"name\":\"C\",\"valueFrom\":{\"fieldRef\":{\"fieldPath\":\"metadata.name\"}}}]",
            "--set-json=registry.env=[{\"name\":\"A\",\"value\":1}]",
            "--set-string=proxy.hostPort=7440,controllers.replicas=3",
        ];
        let found = objects(&values).await;
        let mut checked = 0;
        for object in &found {
            if let Some(its) = object["metadata"].get("namespace").filter(|its| *its != "default") {
                assert_eq!(its, namespace, "{object}");
                checked += 1;
            }
        }
        assert!(checked > 5);
        let webhook = found.iter().find(|object| object["kind"] == "MutatingWebhookConfiguration").unwrap();
        let ignored = &webhook["webhooks"][0]["namespaceSelector"]["matchExpressions"][0]["values"];
        assert_eq!(*ignored, json!(["kube-system", namespace, "1e3", "off"]));
        let controllers = container(&found, "controllers");
        let environment = controllers["env"].as_array().unwrap();
        let value = |name: &str| environment.iter().find(|it| it["name"] == name).unwrap().clone();
        assert_eq!((&value("A")["value"], &value("B")["value"]), (&json!("true"), &json!("1")));
        assert!(value("C").get("value").is_none());
        assert_eq!(container(&found, "registry")["env"][0]["value"], "1");
        let port = &container(&found, "proxy")["ports"][0]["hostPort"];
        assert_eq!(*port, 7440);
    }
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn nulls_render_or_are_refused_by_the_name_of_the_value() {
    for (value, missing) in [
        ("controllers.webhook", "webhook"),
        ("controllers.image", "image"),
        ("registry.persistence", "persistence"),
        ("registry.garbageCollection", "garbageCollection"),
        ("registry.serviceAccount", "serviceAccount"),
        ("proxy.hostPort", "hostPort"),
        ("cachedImagesExpiryDelay", "cachedImagesExpiryDelay"),
        ("rbac", "rbac"),
    ] {
        let error = template("helm-3", &[&format!("--set={value}=null")]).await.unwrap_err().to_string();
        assert!(error.contains("missing property") && error.contains(missing), "{value}: {error}");
    }
    for value in [
        "controllers.affinity",
        "controllers.pdb",
        "controllers.podMonitor",
        "controllers.resources",
        "controllers.webhook.certificates",
        "proxy.priorityClassName",
        "proxy.tolerations",
        "registry.persistence.storageClass",
        "registry.persistence.s3",
        "registry.readinessProbe",
    ] {
        let found = objects(&[&format!("--set={value}=null")]).await;
        assert!(found.len() > 10, "{value}");
    }
}
