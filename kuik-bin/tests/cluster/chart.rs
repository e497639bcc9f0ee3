//! The chart: what it renders is what an API server takes, twice the same, and what cannot work is refused in words.

mod collection;
mod commands;
mod helm;
mod limits;
mod migration;
mod notes;
mod schemas;
mod started;
mod values_1_14;

use std::{collections::BTreeSet, path::PathBuf, process::Command};

use kuik_bin::rbac::{Component, RULES, Scope, WEBHOOK_CONFIGURATION};
use kuik_testkit::real::{ApiServer, InstallSource, RealPartError, run};
use schemas::Schemas;
use serde_json::Value;

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn chart() -> String {
    repository().join("kuik-bin/chart/kube-image-keeper").to_str().unwrap().to_owned()
}

fn every_value() -> String {
    repository().join("kuik-bin/tests/cluster/chart/every-value.yaml").to_str().unwrap().to_owned()
}

/// Renders a release with these arguments.
async fn template(helm: &str, arguments: &[&str]) -> Result<String, RealPartError> {
    let chart = chart();
    let mut all = vec!["template", "kube-image-keeper", &chart, "--namespace", "kuik-system"];
    all.extend(arguments);
    run(helm, InstallSource::BuiltFromGo, all).await
}

/// The name of every object in a rendering, after its kind.
fn objects(rendered: &str) -> BTreeSet<String> {
    let field = |document: &str, name: &str| {
        document.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
    };
    rendered
        .split("\n---")
        .filter_map(|document| {
            let kind = field(document, "kind: ")?;
            let metadata = document.split_once("\nmetadata:\n")?.1;
            Some(format!("{kind}/{}", field(metadata, "  name: ")?.trim_matches('"')))
        })
        .collect()
}

/// Ways in which people install it, by the values that differ.
const INSTALLATIONS: [(&str, &[&str]); 12] = [
    ("as it is", &[]),
    ("on a volume", &["--set=registry.persistence.enabled=true"]),
    (
        "on a bucket with inline keys",
        &[
            "--set=registry.persistence.s3.bucket=b,registry.persistence.s3.accesskey=a,registry.persistence.s3.secretkey=s",
            "--set=registry.replicas=2",
        ],
    ),
    ("on GCS", &["--set=registry.persistence.gcs.bucket=b,registry.persistence.gcsExistingSecret=s"]),
    (
        "on Azure",
        &[
            "--set=registry.persistence.azure.container=c,registry.persistence.azure.accountname=n,registry.persistence.azure.accountkey=k",
        ],
    ),
    (
        "with a protected cache over TLS",
        &[
            "--set=registry.protectReads=true,registry.tls.issuerRef.name=ca,registry.tls.issuerRef.kind=Issuer",
        ],
    ),
    ("by containerd", &["--set=proxy.mode=containerd,proxy.containerd.registries={docker.io}"]),
    ("both ways, on the node's network", &["--set=proxy.mode=both,proxy.hostNetwork=true"]),
    (
        "with Docker's registry",
        &[
            "--set=registry.kind=distribution,registry.persistence.enabled=true",
            "--set-string=registry.garbageCollectionSchedule=0 3 * * 0",
        ],
    ),
    (
        "with replicas of Docker's registry",
        &[
            "--set=registry.kind=distribution,registry.persistence.s3.bucket=b,registry.replicas=2,registry.httpSecret=h",
            "--set=registry.image.tag=3,registry.garbageCollection.deleteUntagged=true",
            "--set-string=registry.garbageCollection.schedule=0 3 * * 0",
        ],
    ),
    (
        "with all that is off by default",
        &[
            "--set=networkPolicy.create=true,priorityClass.create=true,grafanaDashboard.create=true,proxy.readPullSecrets=true,controllers.pdb.create=true,registry.pdb.create=true",
        ],
    ),
    (
        "with what kuik 1.14 had not",
        &["--set=architectures={auto},registry.maxSize=20Gi,registry.revalidateAfter=1h"],
    ),
];

/// Values of one of [`INSTALLATIONS`].
fn installation(name: &str) -> &'static [&'static str] {
    INSTALLATIONS.iter().find(|(known, _)| *known == name).unwrap().1
}

/// Kinds of others, which no API server knows by itself.
const FOREIGN: [&str; 4] = ["PodMonitor", "ServiceMonitor", "Certificate", "Issuer"];

/// An API server and kubeconform, which judge renderings.
struct Judge {
    server: ApiServer,
    schemas: Schemas,
    release: String,
}

impl Judge {
    async fn start() -> Self {
        let server = ApiServer::start().await.unwrap();
        let admin = server.admin();
        let versions: Value =
            serde_json::from_str(&admin.kubectl(["version", "--output=json"]).await.unwrap()).unwrap();
        let release = versions["serverVersion"]["gitVersion"].as_str().unwrap();
        let release = format!("--kube-version={release}");
        let schemas = Schemas::of(admin).await;
        admin.kubectl(["create", "namespace", "kuik-system"]).await.unwrap();
        Self { server, schemas, release }
    }

    /// Panics unless both accept what these values render, which is the same twice.
    async fn accepts(&self, name: &str, values: &[&str]) {
        let values = [values, &[&self.release]].concat();
        let rendered = template("helm-3", &values).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(rendered, template("helm-3", &values).await.unwrap(), "{name}, rendered twice");
        let known: Vec<_> = rendered
            .split("\n---")
            .filter(|document| !FOREIGN.iter().any(|kind| document.contains(&format!("\nkind: {kind}\n"))))
            .collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rendered.yaml");
        std::fs::write(&path, known.join("\n---")).unwrap();
        // Which is strict, and what kubectl 1.20 understands as well.
        let apply = ["apply", "--server-side", "--dry-run=server", "--validate=true", "--filename"];
        let arguments = apply.iter().map(AsRef::as_ref).chain([path.as_os_str()]);
        self.server.admin().kubectl(arguments).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        self.schemas.judge(&path).await.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn an_api_server_takes_every_rendering_to_the_last_field() {
    let judge = Judge::start().await;
    let file = every_value();
    let every: (&str, &[&str]) = ("with every value", &["--values", &file]);
    for (name, values) in INSTALLATIONS.into_iter().chain([every]) {
        judge.accepts(name, values).await;
    }
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn both_helms_render_the_same_objects_and_find_nothing_to_complain_of() {
    for values in [vec![], vec!["--values".to_owned(), every_value()]] {
        let values: Vec<_> = values.iter().map(String::as_str).collect();
        let three = template("helm-3", &values).await.unwrap();
        let four = template("helm-4", &values).await.unwrap();
        assert_eq!(objects(&three), objects(&four));
    }
    for helm in ["helm-3", "helm-4"] {
        run(helm, InstallSource::BuiltFromGo, ["lint", "--strict", &chart(), "--values", &every_value()])
            .await
            .unwrap();
    }
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn the_rules_of_chart_testing_are_kept() {
    run("chart-testing-rules", InstallSource::BuiltFromGo, [&chart()]).await.unwrap();

    // The programs would report a missing permission.
    let folder = tempfile::tempdir().unwrap();
    for (file, mistake) in [("Chart.yaml", "maintainer: me\n"), ("values.yaml", "image:   {  }\n")] {
        for copied in ["Chart.yaml", "values.yaml"] {
            std::fs::copy(format!("{}/{copied}", chart()), folder.path().join(copied)).unwrap();
        }
        let path = folder.path().join(file);
        std::fs::write(&path, std::fs::read_to_string(&path).unwrap() + mistake).unwrap();
        let refused =
            run("chart-testing-rules", InstallSource::BuiltFromGo, [folder.path()]).await.unwrap_err();
        assert!(refused.to_string().contains(file), "{refused}");
    }
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn objects_have_the_names_that_they_always_had() {
    let found = objects(&template("helm-3", &[]).await.unwrap());
    for name in [
        "Deployment/kube-image-keeper-controllers",
        "DaemonSet/kube-image-keeper-proxy",
        "StatefulSet/kube-image-keeper-registry",
        "Service/kube-image-keeper-webhook",
        "Service/kube-image-keeper-registry",
        "CustomResourceDefinition/cachedimages.kuik.enix.io",
        "CustomResourceDefinition/repositories.kuik.enix.io",
    ] {
        assert!(found.contains(name), "{name} is not among {found:#?}");
    }
    let shared = objects(&template("helm-3", installation("on a bucket with inline keys")).await.unwrap());
    assert!(shared.contains("Deployment/kube-image-keeper-registry"));
    assert!(shared.contains("Secret/kube-image-keeper-bucket"));
    let containerd = objects(&template("helm-3", installation("by containerd")).await.unwrap());
    assert!(!containerd.iter().any(|name| name.starts_with("MutatingWebhookConfiguration/")));
}

/// Every rule of a role in a rendering, one for each verb: group, resource, its one object or none, verb.
fn granted(rendered: &str, kind: &str, name: &str) -> BTreeSet<[String; 4]> {
    let documents = rendered.split("\n---").filter(|document| document.contains("\nkind: "));
    let roles = documents.map(|document| serde_saphyr::from_str::<Value>(document).unwrap());
    let role =
        roles.into_iter().find(|role| role["kind"] == kind && role["metadata"]["name"] == name).unwrap();
    let texts = |value: &Value| -> Vec<String> {
        let list = value.as_array().into_iter().flatten();
        list.map(|text| text.as_str().unwrap().to_owned()).collect()
    };
    let mut granted = BTreeSet::new();
    for rule in role["rules"].as_array().unwrap() {
        let mut names = texts(&rule["resourceNames"]);
        if names.is_empty() {
            names.push(String::new());
        }
        for verb in texts(&rule["verbs"]) {
            for name in &names {
                let [group, resource] =
                    [&rule["apiGroups"], &rule["resources"]].map(|list| texts(list).join(","));
                granted.insert([group, resource, name.clone(), verb.clone()]);
            }
        }
    }
    granted
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn chart_grants_components_exactly_their_permissions() {
    let rendered = template("helm-3", &[]).await.unwrap();
    for (component, scope, kind, name) in [
        (Component::Controllers, Scope::Cluster, "ClusterRole", "kube-image-keeper-kuik-system-controllers"),
        (Component::Controllers, Scope::Own, "Role", "kube-image-keeper-controllers"),
        (Component::Controllers, Scope::Default, "Role", "kube-image-keeper-kuik-system-events"),
        (Component::Puller, Scope::Cluster, "ClusterRole", "kube-image-keeper-kuik-system-puller"),
    ] {
        let rules = RULES.iter().filter(|rule| rule.is_of(component) && rule.scope == scope);
        let needed: BTreeSet<_> = rules
            .flat_map(|rule| {
                let names = if rule.names.is_empty() { &[""][..] } else { rule.names };
                names.iter().flat_map(move |&name| {
                    // Not in a namespace: the chart names it by the release's.
                    let configuration = name == WEBHOOK_CONFIGURATION;
                    let name = if configuration { "kube-image-keeper-kuik-system" } else { name };
                    rule.verbs
                        .iter()
                        .map(move |verb| [rule.group, rule.resource, name, verb].map(str::to_owned))
                })
            })
            .collect();
        assert_eq!(granted(&rendered, kind, name), needed, "{kind} {name}");
    }

    // No permissions for certificates that another tool manages, or that are not used.
    for values in ["--set=controllers.webhook.createCertificateIssuer=true", "--set=proxy.mode=containerd"] {
        let rendered = template("helm-3", &[values]).await.unwrap();
        let cluster = granted(&rendered, "ClusterRole", "kube-image-keeper-kuik-system-controllers");
        assert!(cluster.iter().all(|[group, ..]| group != "admissionregistration.k8s.io"), "{values}");
        let own = granted(&rendered, "Role", "kube-image-keeper-controllers");
        assert!(own.iter().all(|[.., name, _]| !name.ends_with("-certificate")), "{values}");
    }
}

/// Permissions of a rendering: the roles that are bound, each with its kind, name and account.
fn bound(rendered: &str) -> BTreeSet<[String; 3]> {
    let documents = rendered.split("\n---").filter(|document| document.contains("\nkind: "));
    let objects = documents.map(|document| serde_saphyr::from_str::<Value>(document).unwrap());
    let bindings = objects.filter(|object| object["kind"].as_str().unwrap().ends_with("RoleBinding"));
    bindings
        .flat_map(|binding| {
            let subjects = binding["subjects"].as_array().unwrap().clone();
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let role = [text(&binding["roleRef"]["kind"]), text(&binding["roleRef"]["name"])];
            subjects
                .into_iter()
                .map(move |subject| [role[0].clone(), role[1].clone(), text(&subject["name"])])
        })
        .collect()
}

/// A role that is right, but bound to another account or missing here, would not be noticed above.
#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn chart_binds_each_role_to_the_account_that_needs_it_in_every_installation() {
    let own = |role: &str, account: &str| {
        ["Role", role, account].map(|name| name.replace('~', "kube-image-keeper"))
    };
    let cluster = |role: &str, account: &str| {
        ["ClusterRole", role, account].map(|name| name.replace('~', "kube-image-keeper"))
    };
    let proxies_pull: (&str, &[&str]) = ("with proxies that read", &["--set=proxy.readPullSecrets=true"]);
    for (name, values) in INSTALLATIONS.into_iter().chain([proxies_pull]) {
        let mut expected = BTreeSet::from([
            own("~-controllers", "~-controllers"),
            own("~-kuik-system-events", "~-controllers"),
            cluster("~-kuik-system-controllers", "~-controllers"),
        ]);
        let values_are = |text: &str| values.iter().any(|value| value.contains(text));
        if values_are("registry.kind=distribution") {
            expected.insert(own("~-registry-gc", "~-registry-gc"));
        } else {
            expected.insert(cluster("~-kuik-system-puller", "~-registry"));
        }
        if values_are("proxy.readPullSecrets=true") {
            expected.insert(cluster("~-kuik-system-puller", "~-proxy"));
        }
        assert_eq!(bound(&template("helm-3", values).await.unwrap()), expected, "{name}");
    }
}

/// Values, and the expected message.
const REFUSED: [(&[&str], &str); 30] = [
    (
        &["--set=registry.persistence.enabled=true,registry.persistence.s3.bucket=b"],
        "only one storage can be used, but these are set: registry.persistence.enabled, registry.persistence.s3",
    ),
    (
        &["--set=registry.persistence.gcs.bucket=b,registry.persistence.s3.bucket=b"],
        "registry.persistence.s3, registry.persistence.gcs",
    ),
    (&["--set=minio.enabled=true"], "remove minio"),
    (&["--set=docker-registry-ui.enabled=true"], "remove docker-registry-ui"),
    (&["--set=psp.create=true"], "remove psp"),
    (&["--set=proxy.kubeApiRateLimits.qps=5"], "remove proxy.kubeApiRateLimits"),
    (&["--set=image.tag=1.14.0"], "remove image.tag"),
    (&["--set=controllers.image.tag=1.9"], "remove controllers.image.tag"),
    (&["--set=registry.image.tag=2.8"], "remove registry.image.tag"),
    (&["--set=registry.env[0].name=REGISTRY_LOG_LEVEL"], "set registry.kind to distribution"),
    (
        &["--set=registry.persistence.s3.bucket=b,registry.persistence.s3.chunksize=5242880"],
        "registry.persistence.s3.chunksize",
    ),
    (
        &["--set=registry.persistence.s3.bucket=b,registry.persistence.s3.storageclass=GLACIER"],
        "remove it, or set registry.kind",
    ),
    (&["--set=registry.persistence.s3.bucket=b,registry.persistence.s3.skipverify=true"], "SSL_CERT_FILE"),
    (&["--set=registry.persistence.s3.bucket=b,registry.persistence.s3.v4auth=false"], "remove v4auth"),
    (&["--set=registry.persistence.gcs.bucket=b,registry.persistence.gcs.keyfile=/k"], "gcs.keyfile"),
    (&["--set=controllers.webhook.certificateIssuerRef.kind=ClusterIssuer"], "certificateIssuerRef.name"),
    (&["--set=controllers.webhook.hostNetwork=true,proxy.hostNetwork=true"], "set controllers.metricsPort"),
    (&["--set=registry.replicas=2"], "or registry.replicas to 1"),
    (
        &[
            "--set=registry.replicas=2,registry.persistence.enabled=true,registry.persistence.accessModes=ReadWriteMany",
        ],
        "or registry.replicas to 1",
    ),
    (
        &["--set=registry.replicas=2,registry.persistence.s3.bucket=b,registry.kind=distribution"],
        "set registry.httpSecret",
    ),
    (&["--set=registry.persistence.s3.region=r"], "set registry.persistence.s3.bucket"),
    (&["--set=registry.persistence.gcs.rootdirectory=r"], "set registry.persistence.gcs.bucket"),
    (&["--set=registry.persistence.azure.container=c"], "registry.persistence.azure.accountname"),
    (&["--set=registry.kind=zot"], "set it to kuik or to distribution"),
    (&["--set=registry.image.repository=mirror.example/library/registry"], "remove registry.image"),
    (&["--set=registry.persistence.enabled=true,registry.persistence.size=1.5Ti"], "set registry.maxSize"),
    (&["--set=proxy.mode=none"], "set it to webhook, containerd or both"),
    (
        &["--set=controllers.webhook.certificates=cert-manager"],
        "set controllers.webhook.certificateIssuerRef.name",
    ),
    (&["--set=rootCertificateAuthorities.secretName=s"], "set rootCertificateAuthorities.keys"),
    (&["--set=proxy.verbosity=loud"], "set it to ERROR, WARN, INFO or DEBUG"),
];

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn chart_rejects_invalid_values_with_a_hint() {
    for (values, said) in REFUSED {
        let error = template("helm-3", values).await.unwrap_err().to_string();
        assert!(error.contains(said), "{values:?}: {error}");
    }
    for (value, key) in [("controllers.replicas=many", "replicas"), ("proxy.hostPort=70000", "hostPort")] {
        let error = template("helm-3", &["--set", value]).await.unwrap_err().to_string();
        assert!(
            error.contains("don't meet the specifications of the schema") && error.contains(key),
            "{error}"
        );
    }
}

#[test]
fn the_page_of_values_is_that_of_the_chart() {
    let made = Command::new(repository().join("tools/chart-values")).output().unwrap();
    assert!(made.status.success());
    let committed = std::fs::read_to_string(repository().join("docs/chart-values.md")).unwrap();
    assert_eq!(
        committed,
        String::from_utf8(made.stdout).unwrap(),
        "tools/chart-values write writes it again"
    );
}
