//! The user's pages in `docs/`: their commands work, and their links lead somewhere.
//!
//! Each page is read from top to bottom on a Kubernetes API server of its own, as a person would do it: every block that
//! says `sh` is run, in order, in one folder. No node is there, so that pods are objects and nobody answers webhooks;
//! blocks of other kinds (`text`, `console`) show what needs a node, or an answer.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail")]

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use futures::StreamExt as _;
use kuik_core::testkit::real::ApiServer;
use tokio::{process::Command, time::timeout};

/// Who reads the page has this already.
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
const PAGES: [(&str, &str, Before); 15] = [
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
    ("uninstallation", "helm-3", Before::Kuik),
    ("uninstallation", "helm-4", Before::Kuik),
    ("migration", "helm-3", Before::Kuik114("registry.persistence.enabled=true")),
    ("migration", "helm-4", Before::Kuik114("registry.persistence.enabled=true")),
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
            Before::Kuik114(values) => ("kuik-bin/tests/chart/kuik-1.14", format!("--set {values}")),
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

/// Every kind of storage that kuik 1.14 had; objects stay, and `helm rollback` goes back.
#[tokio::test]
#[ignore = "needs parts built from Go: make built"]
async fn an_installation_of_kuik_1_14_is_taken_over_and_given_back() {
    let object = r#"{"apiVersion": "kuik.enix.io/v1alpha1", "kind": "CachedImage",
        "metadata": {"name": "docker.io-library-nginx-1.25", "finalizers": ["cachedimage.kuik.enix.io/finalizer"]},
        "spec": {"sourceImage": "nginx:1.25"}}"#;
    for values in [
        "registry.persistence.enabled=false",
        "registry.persistence.enabled=true",
        "registry.persistence.enabled=true,registry.persistence.accessModes=ReadWriteMany",
    ] {
        let shell = Shell::start("helm-3").await;
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
            format!("{upgrade} --set {values}"),
            "helm rollback kube-image-keeper 1 --namespace kuik-system".to_owned(),
        ] {
            shell.run(&step).await.unwrap_or_else(|said| panic!("{values}:\n{step}\n\n{said}"));
            let kept = shell.run("kubectl get cachedimages --output=name").await.unwrap();
            assert_eq!(kept.lines().count(), 1, "{values}, after {step}: {kept}");
        }
    }
}

/// What GitHub makes of a heading.
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
    all.extend(["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|name| root.join(name)));
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

/// A page that nobody runs would rot.
#[test]
fn every_page_with_commands_is_run() {
    let run: BTreeSet<_> = PAGES.iter().map(|(name, ..)| (*name).to_owned()).collect();
    for path in pages().into_iter().filter(|path| path.parent().unwrap().ends_with("docs")) {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let has_commands = !commands(&fs::read_to_string(&path).unwrap()).is_empty();
        assert!(!has_commands || run.contains(&name), "docs/{name}.md has commands, and is not among PAGES");
    }
}
