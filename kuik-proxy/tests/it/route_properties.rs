//! Route properties: every path and query is either parsed or refused, and parsed routes round-trip.

use kuik_core::{
    content::{Digest, TagOrDigest, TagPage},
    reference::{PortForms, RepositoryName},
};
use kuik_proxy::route::Route;
use proptest::prelude::*;

/// Path and query with which a client requests a route.
fn format_route(route: &Route, name: &str) -> (String, Option<String>) {
    match route {
        Route::Version => ("/v2/".to_owned(), None),
        Route::Manifest { at, .. } => (format!("/v2/{name}/manifests/{at}"), None),
        Route::Blob { digest, .. } => (format!("/v2/{name}/blobs/{digest}"), None),
        Route::Tags { page, .. } => {
            let limit = page.limit.map(|n| format!("n={n}"));
            let after = page.after.as_ref().map(|after| format!("last={}", escaped(after)));
            let query: Vec<String> = limit.into_iter().chain(after).collect();
            (format!("/v2/{name}/tags/list"), Some(query.join("&")))
        }
        Route::Referrers { digest, artifact_type, .. } => {
            let query = artifact_type.as_ref().map(|wanted| format!("artifactType={}", escaped(wanted)));
            (format!("/v2/{name}/referrers/{digest}"), query)
        }
        other => panic!("no test writes {other:?}"),
    }
}

fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}

fn parse(path: &str, query: Option<&str>) -> Option<Route> {
    Route::parse(path, query, PortForms::default()).ok()
}

/// Every parsed route round-trips, with the registry in the path and in a parameter.
fn assert_round_trip(route: &Route) {
    let Some(repository) = route.repository() else { return };
    if let Ok(name) = repository.encoded() {
        let (path, query) = format_route(route, &name);
        assert_eq!(parse(&path, query.as_deref()).as_ref(), Some(route), "{path} {query:?}");
    }
    let (path, query) = format_route(route, repository.path());
    let query = query.map(|query| format!("&{query}")).unwrap_or_default();
    let query = format!("ns={}{query}", escaped(repository.registry()));
    assert_eq!(parse(&path, Some(&query)).as_ref(), Some(route), "{path} {query}");
}

fn repositories() -> impl Strategy<Value = RepositoryName> {
    let registry =
        r"(docker\.io|[a-z][a-z0-9]{0,8}(-[a-z0-9]{1,3})?\.[a-z]{2,3}|registry)(:[1-9][0-9]{0,3})?";
    let path = r"[a-z0-9]{1,6}((\.|_|__|-{1,3}|/)[a-z0-9]{1,6}){0,4}";
    (registry, path).prop_filter_map("a name by the grammar", |(registry, path)| {
        RepositoryName::new(&registry, &path).ok()
    })
}

fn digests() -> impl Strategy<Value = Digest> {
    "sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}|[a-z0-9]{1,5}([+._-][a-z0-9]{1,4}){0,2}:[a-zA-Z0-9=_-]{1,40}"
        .prop_filter_map("a digest", |text| text.parse().ok())
}

fn routes() -> impl Strategy<Value = Route> {
    let tag = r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}".prop_map(|tag| TagOrDigest::Tag(tag.parse().unwrap()));
    let at = prop_oneof![tag, digests().prop_map(TagOrDigest::Digest)];
    let page =
        (any::<Option<usize>>(), any::<Option<String>>()).prop_map(|(limit, after)| TagPage { limit, after });
    prop_oneof![
        (repositories(), at).prop_map(|(repository, at)| Route::Manifest { repository, at }),
        (repositories(), digests()).prop_map(|(repository, digest)| Route::Blob { repository, digest }),
        (repositories(), page).prop_map(|(repository, page)| Route::Tags { repository, page }),
        (repositories(), digests(), any::<Option<String>>()).prop_map(
            |(repository, digest, artifact_type)| Route::Referrers { repository, digest, artifact_type }
        ),
    ]
}

proptest! {
    #[test]
    fn routes_round_trip(route in routes()) {
        assert_round_trip(&route);
    }

    #[test]
    fn arbitrary_input_never_panics(path in ".*", query in proptest::option::of(".*")) {
        let _ = Route::parse(&path, query.as_deref(), PortForms::default());
    }

    #[test]
    fn near_valid_paths_never_panic(
        path in r"(/v2)?(/([a-z0-9._-]{0,8}|\.\.|%2e|manifests|blobs|tags|list|referrers|registry__5000)){0,6}(/(sha256:[0-9a-f]{62,66}|[a-zA-Z0-9:%._-]{0,10}))?",
        query in r"([a-zA-Z]{0,3}=?[a-z0-9%+.:-]{0,10}&?){0,3}(ns=[a-z0-9%.:-]{0,20})?",
        dashes in any::<bool>(),
    ) {
        let ports = if dashes { PortForms::OrDash } else { PortForms::DoubleUnderscore };
        if let Ok(route) = Route::parse(&path, Some(&query), ports) {
            assert_round_trip(&route);
        }
    }
}
