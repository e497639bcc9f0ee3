//! `kuik-proxy configure-containerd` on a folder of registry hosts.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _, path::Path};

use crate::support::configure_containerd as configure;

/// Every file and folder below `folder`, with what is in it and its mode.
fn snapshot(folder: &Path) -> BTreeMap<String, (Option<String>, u32)> {
    let mut all = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            let name = path.strip_prefix(folder).unwrap().display().to_string();
            if path.is_dir() {
                all.insert(name, (None, mode));
                folders.push(path);
            } else {
                all.insert(name, (Some(fs::read_to_string(&path).unwrap()), mode));
            }
        }
    }
    all
}

#[tokio::test]
async fn configure_containerd_preserves_foreign_content_and_can_be_reverted() {
    let folder = tempfile::tempdir().unwrap();
    let certs_dir = folder.path();
    let write = |name: &str, content: &str| {
        let path = certs_dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    let theirs = "server = \"https://registry-1.docker.io\"\n\n# ours, in the cellar\n[host.\"https://mirror.example\"]";
    write("docker.io/hosts.toml", theirs);
    write("docker.io/ca.crt", "it stays");
    write("registry.example_5000_/hosts.toml", "server = \"https://registry.example:5000\"");
    let mode = fs::Permissions::from_mode(0o640);
    fs::set_permissions(certs_dir.join("docker.io/hosts.toml"), mode).unwrap();
    let before = snapshot(certs_dir);

    let all = ["--registries", "docker.io,registry.example:5000", "--registries", "ghcr.io"];
    let (said, done) = configure(certs_dir, &all).await;
    assert!(done, "{said}");
    let once = snapshot(certs_dir);
    let (docker, mode) = &once["docker.io/hosts.toml"];
    let docker = docker.as_ref().unwrap();
    assert!(
        docker.find("127.0.0.1:7439").unwrap() < docker.find("# ours, in the cellar").unwrap(),
        "{docker}"
    );
    assert_eq!(mode & 0o777, 0o640);
    assert!(once["registry.example_5000_/hosts.toml"].0.as_ref().unwrap().contains("127.0.0.1:7439"));
    assert_eq!(once["ghcr.io/hosts.toml"].1 & 0o777, 0o644);
    assert_eq!(once["ghcr.io"].1 & 0o777, 0o755);
    assert!(configure(certs_dir, &all).await.1);
    assert_eq!(snapshot(certs_dir), once, "a second run changes nothing");

    let (said, done) = configure(certs_dir, &[]).await;
    assert!(done && said.contains("docker.io has its own directory"), "{said}");
    assert!(configure(certs_dir, &["--remove", "--registries", "_default"]).await.1);
    assert_eq!(snapshot(certs_dir), once, "what was not named stays");
    let (said, done) = configure(certs_dir, &["--remove"]).await;
    assert!(done, "{said}");
    assert_eq!(snapshot(certs_dir), before);
}

#[tokio::test]
async fn fallback_endpoints_are_written_after_the_proxy() {
    let folder = tempfile::tempdir().unwrap();
    let certs_dir = folder.path().join("certs.d");
    let file = certs_dir.join("_default/hosts.toml");
    let urls = || {
        let text = fs::read_to_string(&file).unwrap();
        let urls = text.lines().filter_map(|line| line.strip_prefix("[host.\"")?.strip_suffix("\"]"));
        urls.map(str::to_owned).collect::<Vec<_>>()
    };
    let proxy = "http://127.0.0.1:7439".to_owned();
    let (said, done) = configure(&certs_dir, &["--fallback-endpoint", "https://cache.example:5000/"]).await;
    assert!(done, "{said}");
    assert_eq!(urls(), [proxy.clone(), "https://cache.example:5000".to_owned()]);
    // Replaced by the address; a name without one is reported.
    let resolve = ["--resolve-fallback", "--fallback-endpoint", "http://no-such-name.invalid:5000"];
    let named = ["--fallback-endpoint", "http://127.0.0.1:5000"];
    let (said, done) = configure(&certs_dir, &[&resolve[..], &named].concat()).await;
    assert!(done && said.contains("http://no-such-name.invalid:5000 is left out"), "{said}");
    assert_eq!(urls(), [proxy.clone(), "http://127.0.0.1:5000".to_owned()]);
    assert!(configure(&certs_dir, &[]).await.1);
    assert_eq!(urls(), [proxy], "the entry is replaced as a whole");
    for wrong in [
        &["--fallback-endpoint", "cache:5000"][..],
        &["--resolve-fallback", "--fallback-endpoint", "https://cache.example"],
    ] {
        let (said, done) = configure(&certs_dir, wrong).await;
        assert!(!done && said.contains("-fallback"), "{said}");
    }
    assert!(configure(&certs_dir, &["--remove"]).await.1 && !certs_dir.exists());
}

#[tokio::test]
async fn one_file_that_cannot_be_merged_leaves_all_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let certs_dir = folder.path();
    for (name, content) in
        [("broken.example/hosts.toml", "server = "), ("docker.example/ca.crt", "a certificate")]
    {
        fs::create_dir_all(certs_dir.join(name).parent().unwrap()).unwrap();
        fs::write(certs_dir.join(name), content).unwrap();
    }
    let before = snapshot(certs_dir);
    let arguments = ["--registries", "ghcr.io,broken.example,docker.example"];
    let (said, done) = configure(certs_dir, &arguments).await;
    assert!(!done && said.contains("nothing was changed"), "{said}");
    for expected in [
        "broken.example/hosts.toml: it is not TOML (line 1)",
        "contains \"ca.crt\", which containerd reads only",
    ] {
        assert!(said.contains(expected), "{said}");
    }
    assert_eq!(snapshot(certs_dir), before);
    for arguments in [["--registries", "../up"], ["--endpoint", "proxy:7439"]] {
        let (said, done) = configure(certs_dir, &arguments).await;
        assert!(!done && said.contains(arguments[0]), "{said}");
    }
}
