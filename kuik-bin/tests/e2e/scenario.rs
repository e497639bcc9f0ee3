//! One scenario at a time: it has the release to itself, as it asked for it to be, and a namespace of its own.

use std::{fmt::Write as _, process::Command, time::Instant};

use serde_json::json;
use tokio::sync::{Mutex, MutexGuard};

use super::{Place, apply, helm, kubectl, until};

/// Namespace of kuik.
pub(crate) const NAMESPACE: &str = "kuik-system";
/// Its release, which its objects have their names from.
pub(crate) const RELEASE: &str = "kube-image-keeper";
pub(crate) const CONTROLLERS: &str = "deployment/kube-image-keeper-controllers";
pub(crate) const PROXY: &str = "daemonset/kube-image-keeper-proxy";
pub(crate) const CACHE: &str = "statefulset/kube-image-keeper-registry";

/// Values of the current installation, if known.
static INSTALLED: Mutex<Option<Vec<String>>> = Mutex::const_new(None);

/// A running scenario. If it fails, diagnostics are printed; its namespace is deleted in any case.
pub(crate) struct Scenario {
    pub(crate) namespace: String,
    pub(crate) place: Place,
    since: Instant,
    installed: MutexGuard<'static, Option<Vec<String>>>,
}

pub(crate) fn chart() -> String {
    format!("{}/chart/kube-image-keeper", env!("CARGO_MANIFEST_DIR"))
}

impl Scenario {
    /// Waits for its turn, and installs kuik with its values as they are.
    pub(crate) async fn begin(name: &str) -> Self {
        Self::with(name, &[]).await
    }

    /// Waits for exclusive access, and installs kuik with these values (`KEY=VALUE`) unless it is installed with them.
    pub(crate) async fn with(name: &str, values: &[&str]) -> Self {
        let mut scenario = Self::without_kuik(name).await;
        scenario.install(values).await;
        scenario
    }

    /// Waits for its turn; kuik is there, or not, as the one before left it.
    pub(crate) async fn without_kuik(name: &str) -> Self {
        let installed = INSTALLED.lock().await;
        let namespace = format!("e2e-{name}");
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
        apply(&[object]).await.unwrap();
        let place = Place::here();
        // Node configuration left by a failed scenario.
        let _ = std::fs::remove_dir_all(place.certs_dir.join("_default"));
        Self { namespace, place, since: Instant::now(), installed }
    }

    /// Installs kuik with these values, or changes the release to have them; returns when all of it is ready.
    pub(crate) async fn install(&mut self, values: &[&str]) {
        let values: Vec<_> = values.iter().map(|value| (*value).to_owned()).collect();
        if self.installed.as_ref() != Some(&values) {
            // The state is unknown until the installation is complete.
            *self.installed = None;
            let base = [
                format!("image.repository={},image.tag={}", self.place.repository, self.place.tag),
                format!("insecureRegistries={{{}}}", self.place.address),
            ];
            let chart = chart();
            let mut arguments = vec!["upgrade", "--install", RELEASE, &chart, "--namespace", NAMESPACE];
            arguments.extend(["--create-namespace", "--reset-values", "--wait", "--timeout=150s"]);
            for value in base.iter().chain(&values) {
                // A variable's value is text, whatever it looks like.
                let flag = if value.contains("].value=") { "--set-string" } else { "--set" };
                arguments.extend([flag, value]);
            }
            helm(&arguments).await.unwrap();
            *self.installed = Some(values);
        }
        self.settled().await;
    }

    /// Says that the release is no longer as it was installed.
    pub(crate) fn changed(&mut self) {
        *self.installed = None;
    }

    /// Uninstalls kuik, if installed; definitions and their objects stay.
    pub(crate) async fn uninstall(&mut self) {
        self.changed();
        let arguments = ["uninstall", RELEASE, "--namespace", NAMESPACE, "--ignore-not-found", "--wait"];
        helm(&arguments).await.unwrap();
    }

    /// Removes the remaining definitions and their objects, whose finalizers no controller removes.
    pub(crate) async fn forget_everything(&self) {
        let objects =
            kubectl(&["get", "cachedimages,repositories", "--output=name"]).await.unwrap_or_default();
        for object in objects.lines() {
            let patch = r#"{"metadata":{"finalizers":null}}"#;
            kubectl(&["patch", object, "--type=merge", "--patch", patch]).await.unwrap();
        }
        let names = ["cachedimages.kuik.enix.io", "repositories.kuik.enix.io"];
        let delete = ["delete", "customresourcedefinition", "--ignore-not-found", "--timeout=60s"];
        kubectl(&[&delete[..], &names].concat()).await.unwrap();
    }

    /// Waits until every part of kuik is as it was asked for, and ready.
    pub(crate) async fn settled(&self) {
        for workload in [CONTROLLERS, PROXY] {
            rolled_out(workload).await;
        }
        let caches = ["get", "statefulset,deployment", "--namespace", NAMESPACE, "--output=name"];
        let component = "--selector=app.kubernetes.io/component=registry";
        let cache = kubectl(&[&caches[..], &[component]].concat()).await.unwrap();
        rolled_out(cache.trim()).await;
        let selector = "--selector=app.kubernetes.io/name=kube-image-keeper";
        let webhook = ["get", "mutatingwebhookconfigurations", selector, "--output=name"];
        if !kubectl(&webhook).await.unwrap().is_empty() {
            self.webhook_answers().await;
        }
    }

    /// A Service learns that a pod is ready with a delay, and until then no pod is rewritten.
    pub(crate) async fn webhook_answers(&self) {
        let run = ["run", "probe", "--image=e2e.test/probe:1", "--namespace", &self.namespace];
        until("the webhook is asked", || async {
            let pod = kubectl(&[&run[..], &["--dry-run=server", "--output=yaml"]].concat()).await?;
            if pod.contains("kuik.enix.io/managed") { Ok(()) } else { Err(pod) }
        })
        .await;
    }
}

/// Waits until a workload of the release is as it was asked for, and ready.
pub(crate) async fn rolled_out(workload: &str) {
    let limit = "--timeout=120s";
    kubectl(&["rollout", "status", "--namespace", NAMESPACE, workload, limit]).await.unwrap();
}

impl Drop for Scenario {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", diagnosis(&self.namespace));
            *self.installed = None;
        }
        println!("{}: {:.0} s", self.namespace, self.since.elapsed().as_secs_f64());
        shown(&["delete", "namespace", &self.namespace, "--wait=false"]);
    }
}

/// Diagnostics.
fn diagnosis(namespace: &str) -> String {
    let mut text = String::new();
    let logs = |component| {
        let selector = format!("--selector=app.kubernetes.io/component={component}");
        vec!["logs".to_owned(), format!("--namespace={NAMESPACE}"), selector, "--all-containers".to_owned()]
            .into_iter()
            .chain(["--prefix".to_owned(), "--tail=60".to_owned()])
            .collect::<Vec<_>>()
    };
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let looks = [
        owned(&["get", "pods", "--all-namespaces", "--output=wide"]),
        owned(&["describe", "pods", "--namespace", namespace]),
        owned(&["get", "cachedimages,repositories", "--output=yaml"]),
        owned(&["get", "events", "--namespace", NAMESPACE, "--sort-by=.lastTimestamp"]),
        logs("controllers"),
        logs("proxy"),
        logs("registry"),
    ];
    for look in looks {
        let words: Vec<_> = look.iter().map(String::as_str).collect();
        let _ = writeln!(text, "--- kubectl {}\n{}", look.join(" "), shown(&words));
    }
    text
}

/// Returns kubectl's output, blocking: while a test fails there is no runtime to wait in.
fn shown(arguments: &[&str]) -> String {
    match Command::new("kubectl").args(arguments).arg("--request-timeout=20s").output() {
        Ok(output) => String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        Err(error) => format!("kubectl cannot be run: {error}"),
    }
}
