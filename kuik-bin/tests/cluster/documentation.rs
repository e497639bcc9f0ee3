//! Documentation test of the user guide in `docs/`: its commands work, and its links resolve.
//!
//! Each page is executed from top to bottom on a separate Kubernetes API server: every `sh` block runs, in order, in one
//! directory. There is no node, so pods are only objects and no webhook responds; blocks of other kinds (`text`,
//! `console`) show what needs a node or a response.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use futures::StreamExt as _;
use kuik_testkit::real::ApiServer;
use tokio::{process::Command, time::timeout};

/// Prerequisites of the page.
#[derive(Debug, Clone, Copy)]
enum Before {
    /// A cluster without kuik.
    Nothing,
    /// kuik as it is by default.
    Kuik,
    /// kuik 1.14, with these values.
    Kuik114(&'static str),
}

/// The pages with commands, the release of Helm that runs them, and what is there before.
const PAGES: [(&str, &str, Before); 17] = [
    ("installation", "helm-3", Before::Nothing),
    ("installation", "helm-4", Before::Nothing),
    ("how-it-works", "helm-3", Before::Kuik),
    ("high-availability", "helm-3", Before::Kuik),
    ("garbage-collection", "helm-3", Before::Nothing),
    ("images", "helm-3", Before::Kuik),
    ("private-registries", "helm-3", Before::Kuik),
    ("restricted-networks", "helm-3", Before::Kuik),
    ("troubleshooting", "helm-3", Before::Kuik),
    ("security", "helm-3", Before::Kuik),
    ("sizing", "helm-3", Before::Nothing),
    ("distributions", "helm-3", Before::Nothing),
    ("policies", "helm-3", Before::Kuik),
    ("uninstallation", "helm-3", Before::Kuik),
    ("uninstallation", "helm-4", Before::Kuik),
    ("migration", "helm-3", Before::Kuik114("--set registry.persistence.enabled=true")),
    ("migration", "helm-4", Before::Kuik114("--set registry.persistence.enabled=true")),
];

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn page(name: &str) -> String {
    fs::read_to_string(repository().join(format!("docs/{name}.md"))).unwrap()
}

/// The blocks of commands on a page.
fn commands(page: &str) -> Vec<String> {
    page.split("\n```sh\n").skip(1).map(|rest| rest.split_once("\n```").unwrap().0.to_owned()).collect()
}

/// A shell whose cluster is an API server, in a folder from which the chart is found as from a checkout.
struct Shell {
    server: ApiServer,
    folder: tempfile::TempDir,
}

impl Shell {
    async fn start(helm: &str) -> Self {
        let shell = Self { server: ApiServer::start().await.unwrap(), folder: tempfile::tempdir().unwrap() };
        let folder = shell.folder.path();
        std::os::unix::fs::symlink(repository().join("kuik-bin"), folder.join("kuik-bin")).unwrap();
        // The webhook of CachedImages has to answer, and is not running.
        let script = format!(
            "#!/bin/sh\nset -e\n{helm} \"$@\"\ncase $1 in install | upgrade)\n\
             kubectl delete mutatingwebhookconfigurations --all >/dev/null ;;\nesac\n"
        );
        let wrapper = folder.join("bin/helm");
        fs::create_dir(folder.join("bin")).unwrap();
        fs::write(&wrapper, script).unwrap();
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
        shell
    }

    async fn run(&self, commands: &str) -> Result<String, String> {
        let path = format!("{}/bin:{}", self.folder.path().display(), std::env::var("PATH").unwrap());
        let mut shell = Command::new("bash");
        shell
            .args(["-euo", "pipefail", "-c", commands])
            .current_dir(self.folder.path())
            .env("PATH", path)
            .env("HOME", self.folder.path())
            .env("KUBECONFIG", self.server.admin().kubeconfig())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = timeout(Duration::from_secs(120), shell.output()).await.map_err(|_| "no end of it")?;
        let output = output.map_err(|error| error.to_string())?;
        let [out, said] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
        output.status.success().then(|| out.to_string()).ok_or_else(|| format!("{out}{said}"))
    }

    async fn prepare(&self, before: Before) {
        let (chart, values) = match before {
            Before::Nothing => return,
            Before::Kuik => ("kuik-bin/chart/kube-image-keeper", String::new()),
            Before::Kuik114(values) => ("kuik-bin/tests/cluster/chart/kuik-1.14", values.to_owned()),
        };
        let install = format!(
            "helm install kube-image-keeper {chart} --namespace kuik-system --create-namespace {values}"
        );
        self.run(&install).await.unwrap();
    }
}

#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn every_command_of_every_page_works() {
    let run = async |(name, helm, before)| {
        let shell = Shell::start(helm).await;
        shell.prepare(before).await;
        for block in commands(&page(name)) {
            let result = shell.run(&block).await;
            result.unwrap_or_else(|said| panic!("docs/{name}.md with {helm}:\n{block}\n\n{said}"));
        }
    };
    futures::stream::iter(PAGES).for_each_concurrent(2, run).await;
}

/// The full values file of kuik 1.14, without the images that the chart asks to remove, on a volume.
const FULL: &str = "--values kuik-bin/tests/cluster/chart/values-1.14/defaults.yaml \
                    --values kuik-bin/tests/cluster/chart/values-1.14/images.yaml \
                    --set registry.persistence.enabled=true";

/// The definitions of cert-manager, which kuik 1.14 requires, without their schemas.
fn cert_manager() -> String {
    let definition = |kind: &str| {
        let plural = format!("{}s", kind.to_lowercase());
        serde_json::json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.cert-manager.io")},
            "spec": {"group": "cert-manager.io", "scope": "Namespaced",
                "names": {"kind": kind, "plural": plural},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema":
                    {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}})
    };
    let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": [definition("Certificate"), definition("Issuer")]});
    format!(
        "echo '{list}' | kubectl create --filename=- && \
         kubectl wait crd certificates.cert-manager.io issuers.cert-manager.io --for=condition=Established"
    )
}

/// Every kind of storage that kuik 1.14 had; objects stay, and `helm rollback` goes back.
#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn an_installation_of_kuik_1_14_is_taken_over_and_given_back() {
    let object = r#"{"apiVersion": "kuik.enix.io/v1alpha1", "kind": "CachedImage",
        "metadata": {"name": "docker.io-library-nginx-1.25", "finalizers": ["cachedimage.kuik.enix.io/finalizer"]},
        "spec": {"sourceImage": "nginx:1.25"}}"#;
    for values in [
        "--set registry.persistence.enabled=false",
        "--set registry.persistence.enabled=true",
        "--set registry.persistence.enabled=true,registry.persistence.accessModes=ReadWriteMany",
        FULL,
    ] {
        let shell = Shell::start("helm-3").await;
        shell.run(&cert_manager()).await.unwrap();
        shell.prepare(Before::Kuik114(values)).await;
        shell.run(&format!("echo '{object}' | kubectl create --filename=-")).await.unwrap();
        let handed = commands(&page("migration")).remove(0);
        assert!(
            handed.contains("managed-by=Helm"),
            "the first block of docs/migration.md hands the definitions over"
        );
        let upgrade =
            "helm upgrade kube-image-keeper kuik-bin/chart/kube-image-keeper --namespace kuik-system";
        for step in [
            handed,
            format!("{upgrade} {values}"),
            "helm rollback kube-image-keeper 1 --namespace kuik-system".to_owned(),
        ] {
            shell.run(&step).await.unwrap_or_else(|said| panic!("{values}:\n{step}\n\n{said}"));
            let kept = shell.run("kubectl get cachedimages --output=name").await.unwrap();
            assert_eq!(kept.lines().count(), 1, "{values}, after {step}: {kept}");
        }
    }
}

/// Returns GitHub's anchor of a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    kept.chars()
        .filter(|c| c.is_alphanumeric() || "-_ ".contains(*c))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

fn anchors(page: &str) -> BTreeSet<String> {
    page.lines().filter(|line| line.starts_with('#')).map(anchor).collect()
}

/// The targets of the links in a text.
fn links(page: &str) -> Vec<&str> {
    page.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0)).collect()
}

fn pages() -> Vec<PathBuf> {
    let root = repository();
    let in_docs =
        ["docs", "docs/adr"].into_iter().flat_map(|folder| fs::read_dir(root.join(folder)).unwrap());
    let mut all: Vec<_> = in_docs.map(|entry| entry.unwrap().path()).collect();
    all.extend(
        ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "CODE_OF_CONDUCT.md"]
            .map(|name| root.join(name)),
    );
    all.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    all
}

fn target(from: &Path, link: &str) -> Result<(), String> {
    let (file, heading) = link.split_once('#').unwrap_or((link, ""));
    let path = if file.is_empty() { from.to_owned() } else { from.parent().unwrap().join(file) };
    if !path.exists() {
        return Err(format!("{}: there is no {link}", from.display()));
    }
    if !heading.is_empty() && !anchors(&fs::read_to_string(&path).unwrap()).contains(heading) {
        return Err(format!("{}: there is no such heading: {link}", from.display()));
    }
    Ok(())
}

#[test]
fn links_lead_somewhere() {
    let mut broken = Vec::new();
    for path in pages() {
        let text = fs::read_to_string(&path).unwrap();
        let inside = links(&text).into_iter().filter(|link| !link.contains("://"));
        broken.extend(inside.filter_map(|link| target(&path, link).err()));
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Returns the keys of the values that a command sets.
fn set_values(block: &str) -> Vec<String> {
    let words =
        block.replace("\\\n", " ").replace("--set=", "--set ").replace("--set-string=", "--set-string ");
    let words: Vec<_> = words.split_whitespace().collect();
    let flags = words.windows(2).filter(|pair| matches!(pair[0], "--set" | "--set-string"));
    let assignments = flags.flat_map(|pair| pair[1].trim_matches(['\'', '"']).split(','));
    let keys = assignments.filter_map(|assignment| assignment.split_once('='));
    keys.map(|(key, _)| key.split(['[', '{']).next().unwrap().to_owned()).collect()
}

/// Helm ignores unknown values: a command with a misspelled one succeeds, and has no effect.
#[test]
fn commands_set_only_values_that_the_chart_has() {
    let values =
        fs::read_to_string(repository().join("kuik-bin/chart/kube-image-keeper/values.yaml")).unwrap();
    let values: serde_json::Value = serde_saphyr::from_str(&values).unwrap();
    let is_known = |key: &str| {
        let mut value = &values;
        for part in key.split('.') {
            match value.get(part) {
                Some(found) => value = found,
                // A map with any keys, such as the settings of a bucket.
                None => return value.as_object().is_some_and(serde_json::Map::is_empty),
            }
        }
        true
    };
    let (mut unknown, mut checked) = (Vec::new(), 0);
    for path in pages() {
        let text = fs::read_to_string(&path).unwrap();
        for block in text.split("```").skip(1).step_by(2).filter(|block| block.contains("helm ")) {
            for key in set_values(block) {
                checked += 1;
                if !is_known(&key) {
                    unknown.push(format!("{}: {key}", path.display()));
                }
            }
        }
    }
    assert!(checked > 20, "only {checked} values are set in all pages");
    assert!(unknown.is_empty(), "{}", unknown.join("\n"));
}

/// A page that is never run would become outdated.
#[test]
fn every_page_with_commands_is_run() {
    let run: BTreeSet<_> = PAGES.iter().map(|(name, ..)| (*name).to_owned()).collect();
    let docs = repository().join("docs");
    for path in pages().into_iter().filter(|path| path.parent() == Some(docs.as_path())) {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let has_commands = !commands(&fs::read_to_string(&path).unwrap()).is_empty();
        assert!(!has_commands || run.contains(&name), "docs/{name}.md has commands, and is not among PAGES");
    }
}
