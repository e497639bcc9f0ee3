//! `kuik-proxy configure-containerd`: nodes pull through the proxy, and no image name changes.
//!
//! containerd reads a `hosts.toml` per registry ("registry hosts", in its documentation). Ours is the first host in it;
//! the registry itself stays the last, so that a node whose proxy is away pulls as it did before.

mod certs_dir;
mod hosts_file;

use std::{
    collections::BTreeSet,
    io::{self, Write as _},
    path::PathBuf,
};

use http::Uri;
use kuik_core::reference::RepositoryName;

use self::certs_dir::{CertsDir, CertsDirError, Change, DEFAULT};
use super::Failure;

/// Make containerd pull through this proxy, with every image name as it is.
///
/// Writes a hosts.toml for each registry into the folder that containerd's configuration names as config_path: the proxy
/// first, then what was there before, and the registry itself at last. Without --registries it is for all registries that
/// have no folder of their own (_default). What others have written stays byte for byte; a file that cannot be merged is
/// an error, and then nothing is changed. It may be run again at any time, and --remove undoes it. containerd need not be
/// restarted.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The folder of registry hosts: config_path in containerd's configuration, commonly /etc/containerd/certs.d
    #[arg(long, value_name = "DIR")]
    certs_dir: PathBuf,
    /// A registry as images name it: docker.io, registry.example:5000; may be given several times
    #[arg(long, value_name = "HOST[:PORT]", value_delimiter = ',')]
    registries: Vec<String>,
    /// The proxy, as the node reaches it
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7439")]
    endpoint: String,
    /// Take out again what this command has put in: for these registries, or for all
    #[arg(long)]
    remove: bool,
}

/// What the command was told and cannot be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Mistake {
    #[error("--endpoint: {0:?} is not http://HOST[:PORT] or https://HOST[:PORT]")]
    Endpoint(String),
    #[error("--registries: {0:?} is not a registry as images name it, HOST[:PORT]")]
    Registry(String),
}

/// Everything that keeps the changes from being made, together.
#[derive(Debug, thiserror::Error)]
#[error("nothing was changed:{}", .0.iter().map(|problem| format!("\n  {problem}")).collect::<String>())]
struct NothingChanged(Vec<CertsDirError>);

impl Arguments {
    /// Changes the files, and says on standard output what was done with each.
    ///
    /// # Errors
    /// Where a file cannot be read, merged or written.
    pub fn run(self) -> Result<(), Failure> {
        let registries = names(&self.registries).map_err(Failure::usage)?;
        let endpoint = endpoint(&self.endpoint).map_err(Failure::usage)?;
        let folder = CertsDir::new(self.certs_dir);
        let planned = match (self.remove, registries.is_empty()) {
            (true, true) => folder.plan_remove_all().map_err(|error| vec![error]),
            (true, false) => all(registries.iter().map(|registry| folder.plan_remove(registry))),
            (false, true) => all([folder.plan_insert(DEFAULT, &endpoint)]),
            (false, false) => all(registries.iter().map(|registry| folder.plan_insert(registry, &endpoint))),
        };
        let changes = planned.map_err(NothingChanged).map_err(Failure::new)?;
        let mut out = io::stdout().lock();
        for change in &changes {
            let done = change.make().map_err(Failure::new)?;
            writeln!(out, "{done}").map_err(Failure::new)?;
        }
        if self.remove {
            folder.remove_if_ours(&changes);
        } else if registries.is_empty() {
            for name in folder.own_folders().map_err(Failure::new)? {
                writeln!(out, "{name} has a folder of its own, which containerd reads in place of {DEFAULT}: name it with --registries")
                    .map_err(Failure::new)?;
            }
        }
        Ok(())
    }
}

/// All changes, or all that is wrong.
fn all(
    planned: impl IntoIterator<Item = Result<Change, CertsDirError>>,
) -> Result<Vec<Change>, Vec<CertsDirError>> {
    let mut changes = Vec::new();
    let mut problems = Vec::new();
    for result in planned {
        match result {
            Ok(change) => changes.push(change),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(changes) } else { Err(problems) }
}

/// The registries by the names that containerd has for them, each once.
fn names(given: &[String]) -> Result<BTreeSet<String>, Mistake> {
    let name = |text: &String| match text.trim() {
        DEFAULT => Ok(DEFAULT.to_owned()),
        "index.docker.io" | "registry-1.docker.io" => Ok("docker.io".to_owned()),
        // A name of a registry is a name of a folder too: it has no slash, and does not begin with a dot.
        text if RepositoryName::new(text, "image").is_ok() => Ok(text.to_owned()),
        _ => Err(Mistake::Registry(text.clone())),
    };
    given.iter().map(name).collect()
}

/// The endpoint as it is written into the file.
fn endpoint(given: &str) -> Result<String, Mistake> {
    let text = given.trim_end_matches('/');
    let uri = text.parse::<Uri>().ok();
    let usable = uri.as_ref().is_some_and(|uri| {
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        matches!(uri.scheme_str(), Some("http" | "https"))
            && !authority.is_empty()
            && authority.chars().all(|c| c.is_ascii_alphanumeric() || ".-:[]_".contains(c))
            && uri.path() == "/"
            && uri.query().is_none()
            && !text.contains('#')
    });
    if usable { Ok(text.to_owned()) } else { Err(Mistake::Endpoint(given.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_urls_of_a_host() {
        for given in ["http://127.0.0.1:7439", "https://proxy.example/", "http://[::1]:7439"] {
            assert_eq!(endpoint(given).as_deref(), Ok(given.trim_end_matches('/')));
        }
        for given in [
            "127.0.0.1:7439",
            "http://",
            "ftp://h",
            "http://u:p@h",
            "http://h/path",
            "http://h?q",
            "http://h\"]",
        ] {
            assert_eq!(endpoint(given), Err(Mistake::Endpoint(given.to_owned())));
        }
    }

    #[test]
    fn registries_are_what_images_name() {
        let given = ["docker.io", "index.docker.io", "r.example:5000", "_default"].map(str::to_owned);
        assert_eq!(Vec::from_iter(names(&given).unwrap()), ["_default", "docker.io", "r.example:5000"]);
        for wrong in ["..", "a/b", "", ".hidden", "https://r.example", "a b"] {
            assert_eq!(names(&[wrong.to_owned()]), Err(Mistake::Registry(wrong.to_owned())));
        }
    }
}
