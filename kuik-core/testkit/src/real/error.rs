//! Error of running a real program, with a remedy.

use std::{fmt, io};

/// A real program could not be run.
#[derive(Debug)]
pub struct RealPartError(String);

impl RealPartError {
    pub(super) fn new(problem: impl fmt::Display) -> Self {
        Self(problem.to_string())
    }

    /// Creates the error of a program that cannot be run.
    pub(super) fn missing(program: &str, install_source: InstallSource, error: &io::Error) -> Self {
        let remedy = match install_source {
            InstallSource::Debian(package) => format!("install the Debian package {package}"),
            InstallSource::BuiltFromGo => {
                "run tools/install-parts go chart, and the tests that need it with make built".to_owned()
            }
            InstallSource::Kubernetes => {
                "run tools/install-parts kube, and the tests that need it with make built; or set \
                                   KUBEBUILDER_ASSETS to a folder that has it (setup-envtest fetches one)"
                    .to_owned()
            }
        };
        Self(format!("{program} cannot be run ({error}): {remedy}"))
    }

    /// Whether the port was taken between finding it free and using it.
    pub(super) fn is_address_in_use(&self) -> bool {
        self.0.contains("address already in use") || self.0.contains("port is already in use")
    }
}

impl fmt::Display for RealPartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for RealPartError {}

impl From<io::Error> for RealPartError {
    fn from(error: io::Error) -> Self {
        Self::new(error)
    }
}

/// Installation source of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum InstallSource {
    /// A Debian package of this name.
    Debian(&'static str),
    /// `tools/install-parts go chart`, which builds it at a pinned version.
    BuiltFromGo,
    /// `tools/install-parts kube`, which builds it at a pinned version, or the folder that `KUBEBUILDER_ASSETS` names.
    Kubernetes,
}

impl From<&'static str> for InstallSource {
    fn from(package: &'static str) -> Self {
        Self::Debian(package)
    }
}
