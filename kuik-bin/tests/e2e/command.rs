//! kubectl and Helm, as a person at a terminal has them.

use std::{ffi::OsStr, io::Write as _, process::Stdio, time::Duration};

use serde_json::Value;
use tokio::{process::Command, time::timeout};

/// Helm waits for pods, which pull and start.
const LIMIT: Duration = Duration::from_secs(240);

/// Runs a program to its end; returns what it printed, or its words where it failed.
pub(crate) async fn run<S: AsRef<OsStr>>(
    program: &str,
    arguments: impl IntoIterator<Item = S>,
) -> Result<String, String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let shown = format!("{:?}", command.as_std());
    let output = match timeout(LIMIT, command.output()).await {
        Ok(output) => {
            output.map_err(|error| format!("{program} cannot be run ({error}): run this by make e2e"))?
        }
        Err(_) => return Err(format!("{shown} did not end within {LIMIT:?}")),
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{shown} failed: {}", String::from_utf8_lossy(&output.stderr)))
}

pub(crate) async fn kubectl(arguments: &[&str]) -> Result<String, String> {
    run("kubectl", arguments).await
}

pub(crate) async fn helm(arguments: &[&str]) -> Result<String, String> {
    run("helm-3", arguments).await
}

/// What `kubectl get ARGUMENTS --output=json` prints.
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
