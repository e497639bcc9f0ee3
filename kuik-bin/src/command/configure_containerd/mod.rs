//! `kuik-proxy configure-containerd`: registry mirror configuration of containerd, without changing image names.
//!
//! containerd reads a `hosts.toml` per registry ("registry hosts", in its documentation). The proxy becomes its first
//! host, and the cache can be the second, for a node whose proxy is down. The registry itself stays the last.

mod certs_dir;
mod hosts_file;
mod resolve;

use std::{
    collections::BTreeSet,
    io::{self, Write as _},
    path::PathBuf,
};

use http::Uri;
use kuik_core::reference::RepositoryName;

use self::{
    certs_dir::{CertsDir, CertsDirError, Change, DEFAULT},
    hosts_file::Endpoints,
};
use crate::cli_error::CliError;

/// Configure containerd to pull through this proxy with unchanged image names.
///
/// Writes a hosts.toml for each registry into the config_path directory of containerd: the proxy first, then the fallback
/// endpoints, then existing hosts, then the registry itself. Without --registries, it applies to all registries that have no directory there
/// (_default). Existing content is preserved byte for byte; if a file cannot be merged, nothing is changed. The command is
/// idempotent, and --remove reverts it. containerd does not have to be restarted.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Directory of registry hosts: config_path in containerd's configuration, usually /etc/containerd/certs.d
    #[arg(long, value_name = "DIR")]
    certs_dir: PathBuf,
    /// Registry as in image names, such as docker.io or registry.example:5000; repeatable
    #[arg(long, value_name = "HOST[:PORT]", value_delimiter = ',')]
    registries: Vec<String>,
    /// URL of the proxy on the node
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7439")]
    endpoint: String,
    /// URL of the cache for a node whose proxy does not respond, tried after the proxy; repeatable
    #[arg(long, value_name = "URL")]
    fallback_endpoint: Vec<String>,
    /// Write the address of each fallback endpoint instead of its name, for nodes that do not use the DNS of the cluster;
    /// a name without an address is left out. Only for http
    #[arg(long)]
    resolve_fallback: bool,
    /// Remove the entries that this command wrote, for the given registries or for all
    #[arg(long)]
    remove: bool,
}

/// An invalid argument.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Mistake {
    #[error("{flag}: {url:?} is not http://HOST[:PORT] or https://HOST[:PORT]")]
    Endpoint { flag: &'static str, url: String },
    #[error("--resolve-fallback: the certificate of {0:?} is for its name, not for its address")]
    ResolvedHttps(String),
    #[error("--registries: {0:?} is not a registry, HOST[:PORT]")]
    Registry(String),
}

/// All errors that prevent the changes.
#[derive(Debug, thiserror::Error)]
#[error("nothing was changed:{}", .0.iter().map(|problem| format!("\n  {problem}")).collect::<String>())]
struct NothingChanged(Vec<CertsDirError>);

impl Arguments {
    /// Changes the files, and prints what was done with each.
    ///
    /// # Errors
    /// Fails if a file cannot be read, merged or written.
    pub fn run(self) -> Result<(), CliError> {
        let registries = names(&self.registries).map_err(CliError::usage)?;
        let (endpoints, left_out) = self.endpoints().map_err(CliError::usage)?;
        let folder = CertsDir::new(self.certs_dir);
        let planned = match (self.remove, registries.is_empty()) {
            (true, true) => folder.plan_remove_all().map_err(|error| vec![error]),
            (true, false) => all(registries.iter().map(|registry| folder.plan_remove(registry))),
            (false, true) => all([folder.plan_insert(DEFAULT, &endpoints)]),
            (false, false) => all(registries.iter().map(|registry| folder.plan_insert(registry, &endpoints))),
        };
        let changes = planned.map_err(NothingChanged).map_err(CliError::new)?;
        let mut out = io::stdout().lock();
        for change in &changes {
            let done = change.make().map_err(CliError::new)?;
            writeln!(out, "{done}").map_err(CliError::new)?;
        }
        for line in &left_out {
            writeln!(out, "{line}").map_err(CliError::new)?;
        }
        if self.remove {
            folder.remove_if_ours(&changes);
        } else if registries.is_empty() {
            for name in folder.own_folders().map_err(CliError::new)? {
                writeln!(out, "{name} has its own directory, which containerd reads instead of {DEFAULT}: add it with --registries")
                    .map_err(CliError::new)?;
            }
        }
        Ok(())
    }

    /// Returns the hosts of the entry, and a line about each fallback that is left out because it has no address.
    fn endpoints(&self) -> Result<(Endpoints, Vec<String>), Mistake> {
        let proxy = endpoint("--endpoint", &self.endpoint)?;
        let (mut fallbacks, mut left_out) = (Vec::new(), Vec::new());
        for given in &self.fallback_endpoint {
            let url = endpoint("--fallback-endpoint", given)?;
            if !self.resolve_fallback || self.remove {
                fallbacks.push(url);
                continue;
            }
            if url.starts_with("https") {
                return Err(Mistake::ResolvedHttps(url));
            }
            match resolve::resolved(&url) {
                Ok(url) => fallbacks.push(url),
                Err(error) => left_out.push(format!("{url} is left out: {error}")),
            }
        }
        Ok((Endpoints { proxy, fallbacks }, left_out))
    }
}

/// Returns all changes, or all errors.
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
fn endpoint(flag: &'static str, given: &str) -> Result<String, Mistake> {
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
    if usable { Ok(text.to_owned()) } else { Err(Mistake::Endpoint { flag, url: given.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_urls_of_a_host() {
        for given in ["http://127.0.0.1:7439", "https://proxy.example/", "http://[::1]:7439"] {
            assert_eq!(endpoint("--endpoint", given).as_deref(), Ok(given.trim_end_matches('/')));
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
            let mistake = Mistake::Endpoint { flag: "--endpoint", url: given.to_owned() };
            assert_eq!(endpoint("--endpoint", given), Err(mistake));
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
