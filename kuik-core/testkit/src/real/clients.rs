//! One-shot commands: skopeo, crane, and any other program.

use std::{ffi::OsStr, process::Stdio, time::Duration};

use tokio::{process::Command, time::timeout};

use super::{
    error::{InstallSource, RealPartError},
    program::PATIENCE,
};

/// Runs `skopeo` without the signature policy of the machine; returns its output.
///
/// # Errors
/// Returns an error if it is not installed, or fails: the error has its output.
pub async fn skopeo<S: AsRef<OsStr>>(
    arguments: impl IntoIterator<Item = S>,
) -> Result<String, RealPartError> {
    let mut all = vec!["--insecure-policy".into()];
    all.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
    run("skopeo", "skopeo", all).await
}

/// Runs `crane`, which speaks plain HTTP to loopback registries by default; returns its output.
///
/// # Errors
/// Returns an error if it is not installed, or fails: the error has its output.
pub async fn crane<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Result<String, RealPartError> {
    run("crane", InstallSource::BuiltFromGo, arguments).await
}

/// Runs a program to completion; returns its output. `install_source` is the name of a Debian package, or another
/// [`InstallSource`].
///
/// # Errors
/// Returns an error if it is not installed, does not end in time, or fails.
pub async fn run<S: AsRef<OsStr>>(
    program: &str,
    install_source: impl Into<InstallSource>,
    arguments: impl IntoIterator<Item = S>,
) -> Result<String, RealPartError> {
    run_within(PATIENCE, program, install_source, arguments).await
}

/// Runs a program to completion, with a timeout of `limit`.
///
/// # Errors
/// As for [`run`].
pub async fn run_within<S: AsRef<OsStr>>(
    limit: Duration,
    program: &str,
    install_source: impl Into<InstallSource>,
    arguments: impl IntoIterator<Item = S>,
) -> Result<String, RealPartError> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = match timeout(limit, command.output()).await {
        Ok(output) => {
            output.map_err(|error| RealPartError::missing(program, install_source.into(), &error))?
        }
        Err(_) => return Err(RealPartError::new(format_args!("{program} did not end within {limit:?}"))),
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(RealPartError::new(format_args!("{program} failed ({}): {said}", output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
