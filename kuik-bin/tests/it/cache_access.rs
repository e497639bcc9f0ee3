//! A node's proxy in front of a cache that requires TLS with a private authority, and a token for reads: certificate and
//! token are replaced while both run.

use std::{fs, path::Path};

use kuik_testkit::{SampleImage, ScriptedRegistry};

use crate::support::{Authority, Kuik, eventually, get, proxied};

/// A folder with the files of a mounted Secret.
struct Files(tempfile::TempDir);

impl Files {
    fn new(authority: &Authority, token: &str) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        // Replicas are found by the name, and have the certificate of the name.
        authority.write(files.folder(), "localhost");
        files.set_token(token);
        files
    }

    fn folder(&self) -> &Path {
        self.0.path()
    }

    fn set_token(&self, token: &str) {
        // Replaced at once, as Kubernetes does it.
        fs::write(self.folder().join("next"), token).unwrap();
        fs::rename(self.folder().join("next"), self.folder().join("token")).unwrap();
    }

    fn path(&self, name: &str) -> String {
        self.folder().join(name).display().to_string()
    }

    /// A protected cache of the registry at `upstream`.
    async fn cache(&self, upstream: &str) -> Kuik {
        let data = self.folder().join("data");
        let [certificate, key, token] = ["tls.crt", "tls.key", "token"].map(|name| self.path(name));
        let arguments = [
            ["--tls-cert-file", &certificate],
            ["--tls-private-key-file", &key],
            ["--token-file", &token],
            ["--insecure-registries", upstream],
            ["--pull-through", "--protect-reads"],
        ];
        Kuik::registry(&data, arguments.as_flattened()).await
    }
}

async fn proxy(cache: &Kuik, upstream: &str, arguments: &[&str]) -> Kuik {
    let endpoint = format!("https://localhost:{}", cache.address().port());
    Kuik::proxy(&[endpoint], &[&["--insecure-registries", upstream], arguments].concat()).await
}

#[tokio::test]
async fn proxy_reads_a_protected_cache_over_tls_and_follows_new_secrets() {
    let (upstream, authority) = (ScriptedRegistry::start().await.unwrap(), Authority::new());
    let image = SampleImage::small(301);
    upstream.add_image("app", "v1", &image);
    let files = Files::new(&authority, "the-first-token");
    let cache = files.cache(&upstream.host()).await;
    let access = [
        ["--registry-certificate-authority", &files.path("ca.crt")],
        ["--registry-credentials-file", &files.path("token")],
    ];
    let node = proxy(&cache, &upstream.host(), access.as_flattened()).await;
    let repository = proxied(&upstream.host(), "app");
    let blob = image.layers()[0].digest.to_string();
    let paths = [format!("/v2/{repository}/manifests/v1"), format!("/v2/{repository}/blobs/{blob}")];
    let pulls = async |node: &Kuik| {
        let mut all = true;
        for path in &paths {
            all &= get(node.address(), path).await.status == 200;
        }
        all
    };
    assert!(pulls(&node).await, "{}", node.log());
    // From here on, only the cache can answer.
    upstream.stop().await;
    eventually("it is in the cache", async || pulls(&node).await).await;

    // Without the token, or without the authority, the cache cannot be read.
    let untrusting = [access[1]];
    for (arguments, problem) in [(&access[..1], "no credentials"), (&untrusting[..], "no authority")] {
        let other = proxy(&cache, &upstream.host(), arguments.as_flattened()).await;
        assert!(!pulls(&other).await, "{problem}");
    }

    // The token is replaced: no request fails, before or after the cache has it.
    files.set_token("the-second-token");
    eventually("the cache has the new token", async || {
        assert!(pulls(&node).await, "{}", node.log());
        cache.log().contains("token reloaded")
    })
    .await;
    assert!(pulls(&node).await, "{}", node.log());

    // So are the authority and the certificate.
    let other = Authority::new();
    other.write(files.folder(), "localhost");
    node.logs("certificate authorities loaded").await;
    let fresh = proxy(&cache, &upstream.host(), access.as_flattened()).await;
    eventually("a new proxy trusts the new certificate", async || pulls(&fresh).await).await;
    eventually("the old one does too", async || pulls(&node).await).await;
}
