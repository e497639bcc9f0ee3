//! Requests that no client of good will sends, as bytes on the socket of `kuik serve`.

use crate::support::{Kuik, Transfer, ask, get, proxied};
use kuik_testkit::ScriptedRegistry;

const HEX: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

/// A cache, the one registry that it may ask over plain http, and what `app` there is called in paths.
async fn cache() -> (tempfile::TempDir, Kuik, ScriptedRegistry, String) {
    let registry = ScriptedRegistry::start().await.unwrap();
    registry.add_blob("app", "something");
    let data = tempfile::tempdir().unwrap();
    let kuik = Kuik::serve(data.path(), &["--insecure-registries", &registry.host()]).await;
    let app = proxied(&registry.host(), "app");
    (data, kuik, registry, app)
}

#[tokio::test]
async fn bad_paths_are_refused_and_reach_nothing() {
    let (data, kuik, registry, app) = cache().await;
    let long = "a".repeat(10_000);
    let up = app.strip_suffix("/app").unwrap();
    let table = [
        // Names.
        (format!("/v2/{up}/../manifests/v1"), 400, "NAME_INVALID"),
        (format!("/v2/{up}/../../../etc/manifests/v1"), 400, "NAME_INVALID"),
        (format!("/v2/../{up}/app/manifests/v1"), 400, "NAME_INVALID"),
        (format!("/v2/{up}/./app/manifests/v1"), 400, "NAME_INVALID"),
        (format!("/v2/{up}/%2e%2e/app/manifests/v1"), 400, "NAME_INVALID"),
        (format!("/v2/{up}/%2E%2E%2fapp/manifests/v1"), 400, "NAME_INVALID"),
        (format!("/v2/{up}/a%00/manifests/v1"), 400, "NAME_INVALID"),
        (format!("/v2/{up}//app/manifests/v1"), 400, "NAME_INVALID"),
        (format!("/v2//{up}/app/manifests/v1"), 400, "NAME_INVALID"),
        (format!("/v2/{up}/app//manifests/v1"), 400, "NAME_INVALID"),
        (format!("/v2/{up}/App/manifests/v1"), 400, "NAME_INVALID"),
        (format!("/v2/{up}/_layers/manifests/v1"), 400, "NAME_INVALID"),
        (format!("/v2/{up}/{}/manifests/v1", "a".repeat(256)), 400, "NAME_INVALID"),
        (format!("/v2/{up}/a\\..\\b/manifests/v1"), 400, "NAME_INVALID"),
        ("/v2//manifests/v1".to_owned(), 400, "NAME_INVALID"),
        ("/v2/app/manifests/v1?ns=../..".to_owned(), 400, "NAME_INVALID"),
        ("/v2/app/manifests/v1?ns=".to_owned(), 400, "NAME_INVALID"),
        ("/v2/app/manifests/v1?ns=%zz".to_owned(), 400, "UNSUPPORTED"),
        // Lengths.
        (format!("/v2/{up}/{long}/manifests/v1"), 414, "NAME_INVALID"),
        (format!("/{long}"), 414, "NAME_INVALID"),
        (format!("/v2/{app}/manifests/v1?ns={long}"), 414, "NAME_INVALID"),
        // Tags.
        (format!("/v2/{app}/manifests/.."), 400, "TAG_INVALID"),
        (format!("/v2/{app}/manifests/"), 400, "TAG_INVALID"),
        (format!("/v2/{app}/manifests/{}", "a".repeat(129)), 400, "TAG_INVALID"),
        (format!("/v2/{app}/manifests/%2e%2e"), 400, "DIGEST_INVALID"),
        // Digests.
        (format!("/v2/{app}/blobs/sha256:{}", &HEX[1..]), 400, "DIGEST_INVALID"),
        (format!("/v2/{app}/blobs/sha256:{HEX}0"), 400, "DIGEST_INVALID"),
        (format!("/v2/{app}/blobs/sha256:{}", HEX.to_uppercase()), 400, "DIGEST_INVALID"),
        (format!("/v2/{app}/blobs/sha512:{HEX}"), 400, "DIGEST_INVALID"),
        (format!("/v2/{app}/blobs/sha256:"), 400, "DIGEST_INVALID"),
        (format!("/v2/{app}/blobs/sha256:../../../../etc/passwd"), 404, "UNSUPPORTED"),
        (format!("/v2/{app}/blobs/sha256:..%2f..%2fetc%2fpasswd"), 400, "DIGEST_INVALID"),
        (format!("/v2/{app}/blobs/latest"), 400, "DIGEST_INVALID"),
        (format!("/v2/{app}/manifests/sha256:{}", &HEX[1..]), 400, "DIGEST_INVALID"),
        (format!("/v2/{app}/blobs/md5:d41d8cd98f00b204e9800998ecf8427e"), 400, "UNSUPPORTED"),
        (format!("/v2/{app}/manifests/md5:d41d8cd98f00b204e9800998ecf8427e"), 400, "UNSUPPORTED"),
        // Endpoints.
        ("/".to_owned(), 404, "UNSUPPORTED"),
        ("/v1/_ping".to_owned(), 404, "UNSUPPORTED"),
        ("/v2/_catalog".to_owned(), 404, "UNSUPPORTED"),
        (format!("//v2/{app}/manifests/v1"), 404, "UNSUPPORTED"),
        ("/v2/../../etc/passwd".to_owned(), 404, "UNSUPPORTED"),
        (format!("/v2/{app}/blobs/uploads/"), 404, "UNSUPPORTED"),
        (format!("/v2/{app}/tags/list?n=-1"), 400, "UNSUPPORTED"),
        // Addresses that only this machine can reach, and that no setting names.
        ("/v2/127.0.0.1__1/app/manifests/v1".to_owned(), 403, "DENIED"),
        ("/v2/localhost__1/app/manifests/v1".to_owned(), 403, "DENIED"),
        ("/v2/169.254.169.254/latest/manifests/v1".to_owned(), 403, "DENIED"),
        ("/v2/app/manifests/v1?ns=%5B::1%5D:1".to_owned(), 403, "DENIED"),
    ];
    for (target, status, code) in table {
        let shown = &target[..target.len().min(120)];
        let answer = get(kuik.address(), &target).await;
        assert_eq!((answer.status, answer.error_code().as_str()), (status, code), "GET {shown}: {answer:?}");
        let answer = ask(kuik.address(), "HEAD", &target).await;
        assert_eq!((answer.status, answer.body.len()), (status, 0), "HEAD {shown}: {answer:?}");
    }
    assert!(registry.log().is_empty(), "upstream was asked: {:?}", registry.log());
    assert!(!data.path().join("docker/registry/v2/repositories").exists(), "something was written");
    assert_eq!(get(kuik.address(), "/readyz").await.status, 200);
}

#[tokio::test]
async fn only_reading_is_allowed() {
    let (_data, kuik, registry, app) = cache().await;
    for method in ["PUT", "POST", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"] {
        for target in [
            "/v2/".to_owned(),
            format!("/v2/{app}/manifests/v1"),
            format!("/v2/{app}/blobs/uploads/"),
            format!("/v2/{app}/blobs/sha256:{HEX}"),
        ] {
            let answer = ask(kuik.address(), method, &target).await;
            let got = (answer.status, answer.header("allow").to_owned(), answer.error_code());
            assert_eq!(got, (405, "GET, HEAD".to_owned(), "UNSUPPORTED".to_owned()), "{method} {target}");
        }
    }
    assert!(registry.log().is_empty(), "upstream was asked: {:?}", registry.log());
}

#[tokio::test]
async fn missing_content_is_not_found() {
    let (_data, kuik, _registry, app) = cache().await;
    for (target, code) in [
        (format!("/v2/{app}/blobs/sha256:{HEX}"), "BLOB_UNKNOWN"),
        (format!("/v2/{app}/manifests/sha256:{HEX}"), "MANIFEST_UNKNOWN"),
        (format!("/v2/{app}/manifests/v9"), "MANIFEST_UNKNOWN"),
        (format!("/v2/{app}/app/tags/list"), "NAME_UNKNOWN"),
    ] {
        let answer = get(kuik.address(), &target).await;
        assert_eq!((answer.status, answer.error_code().as_str()), (404, code), "{target}: {answer:?}");
        let answer = ask(kuik.address(), "HEAD", &target).await;
        assert_eq!((answer.status, answer.body.len()), (404, 0), "{target}: {answer:?}");
    }
}

#[tokio::test]
async fn invalid_http_is_rejected_and_affects_no_other_client() {
    let (_data, kuik, _registry, app) = cache().await;
    let many_headers = "X: y\r\n".repeat(1000);
    let long_header = format!("X: {}\r\n", "y".repeat(1 << 20));
    for (what, request, statuses) in [
        ("noise", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(), [400, 0]),
        ("a zero byte", b"GET /v2/a\0b HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), [400, 0]),
        ("a space in the path", b"GET /v2/a b/manifests/v1 HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), [400, 0]),
        ("no version", b"GET /v2/\r\n\r\n".to_vec(), [400, 0]),
        (
            "two lengths",
            b"GET /v2/ HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n".to_vec(),
            [400, 0],
        ),
        ("many headers", format!("GET /v2/ HTTP/1.1\r\n{many_headers}\r\n").into_bytes(), [431, 400]),
        ("a long header", format!("GET /v2/ HTTP/1.1\r\n{long_header}\r\n").into_bytes(), [431, 0]),
        ("a long target", format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(1 << 20)).into_bytes(), [414, 431]),
    ] {
        let answer = Transfer::raw(kuik.address(), &request).await;
        assert!(statuses.contains(&answer.status), "{what}: {}", answer.head);
    }
    let pipelined = format!("GET /v2/{app}/manifests/.. HTTP/1.1\r\nHost: x\r\n\r\n");
    let closing = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let both = Transfer::raw(kuik.address(), format!("{pipelined}{closing}").as_bytes()).await.answer().await;
    let rest = String::from_utf8_lossy(&both.body).into_owned();
    assert!(
        both.status == 400 && rest.contains("HTTP/1.1 200"),
        "a refused request ends no connection: {rest}"
    );
    assert_eq!(get(kuik.address(), "/healthz").await.status, 200);
}
