//! `kuik-proxy configure-containerd`, as a user runs it.

use std::path::Path;

use super::kuik_proxy;

/// Runs `configure-containerd`; what it says, and whether it was content.
pub(crate) async fn configure_containerd(certs_dir: &Path, arguments: &[&str]) -> (String, bool) {
    let mut command = kuik_proxy(["configure-containerd", "--certs-dir"]);
    let output = command.arg(certs_dir).args(arguments).output().await.unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (said, output.status.success())
}
