//! kubectl and Helm, as a person at a terminal has them.

use std::{io::Write as _, time::Duration};

use kuik_testkit::real::{InstallSource, run_within};
use serde_json::Value;

/// Helm waits for pods, which pull and start.
const LIMIT: Duration = Duration::from_secs(240);

/// Runs a program to completion; returns its output, or the command and its error output if it failed.
pub(crate) async fn run(
    program: &str,
    install_source: InstallSource,
    arguments: &[&str],
) -> Result<String, String> {
    let ended = run_within(LIMIT, program, install_source, arguments).await;
    ended.map_err(|error| format!("{program} {arguments:?}: {error}"))
}

pub(crate) async fn kubectl(arguments: &[&str]) -> Result<String, String> {
    run("kubectl", InstallSource::Kubernetes, arguments).await
}

/// Helm 3, or the program that `KUIK_E2E_HELM` names.
pub(crate) async fn helm(arguments: &[&str]) -> Result<String, String> {
    let program = std::env::var("KUIK_E2E_HELM").unwrap_or_else(|_| "helm-3".to_owned());
    run(&program, InstallSource::BuiltFromGo, arguments).await
}

/// Returns the output of `kubectl get ARGUMENTS --output=json`.
pub(crate) async fn json(arguments: &[&str]) -> Result<Value, String> {
    let printed = kubectl(&[&["get", "--output=json"], arguments].concat()).await?;
    serde_json::from_str(&printed)
        .map_err(|error| format!("kubectl get {arguments:?} printed no JSON: {error}"))
}

/// Creates or changes objects.
pub(crate) async fn apply(objects: &[Value]) -> Result<String, String> {
    let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects});
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(list.to_string().as_bytes()).unwrap();
    kubectl(&["apply", "--filename", file.path().to_str().unwrap()]).await
}
