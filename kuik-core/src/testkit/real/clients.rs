//! Programs that run to their end: skopeo, crane, and any other.

use std::{ffi::OsStr, process::Stdio, time::Duration};

use tokio::{process::Command, time::timeout};

use super::{
    error::{Origin, RealPartError},
    program::PATIENCE,
};

/// Runs `skopeo` without a signature policy of the machine; returns what it printed.
///
/// # Errors
/// Where it is not installed, or fails: the error has its words.
pub async fn skopeo<S: AsRef<OsStr>>(
    arguments: impl IntoIterator<Item = S>,
) -> Result<String, RealPartError> {
    let mut all = vec!["--insecure-policy".into()];
    all.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
    run("skopeo", "skopeo", all).await
}

/// Runs `crane`, which speaks plain http to loopback registries by itself; returns what it printed.
///
/// # Errors
/// Where it is not installed, or fails: the error has its words.
pub async fn crane<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Result<String, RealPartError> {
    run("crane", Origin::BuiltFromGo, arguments).await
}

/// Runs a program to its end; returns what it printed. `origin` is where it comes from: the name of a Debian package,
/// or another [`Origin`].
///
/// # Errors
/// Where it is not installed, does not end in time, or fails.
pub async fn run<S: AsRef<OsStr>>(
    program: &str,
    origin: impl Into<Origin>,
    arguments: impl IntoIterator<Item = S>,
) -> Result<String, RealPartError> {
    run_within(PATIENCE, program, origin, arguments).await
}

/// The same, for what may take as long as `limit`.
///
/// # Errors
/// As for [`run`].
pub async fn run_within<S: AsRef<OsStr>>(
    limit: Duration,
    program: &str,
    origin: impl Into<Origin>,
    arguments: impl IntoIterator<Item = S>,
) -> Result<String, RealPartError> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = match timeout(limit, command.output()).await {
        Ok(output) => output.map_err(|error| RealPartError::missing(program, origin.into(), &error))?,
        Err(_) => return Err(RealPartError::new(format_args!("{program} did not end within {limit:?}"))),
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(RealPartError::new(format_args!("{program} failed ({}): {said}", output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
