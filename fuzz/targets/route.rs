//! Routes: parsing never panics, and parsed routes round-trip. The first line is the path, the second the query.
#![no_main]

use kuik_core::{
    content::{TagOrDigest, TagPage},
    reference::PortForms,
};
use kuik_proxy::route::Route;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (path, query) = match text.split_once('\n') {
        Some((path, query)) => (path, Some(query)),
        None => (text, None),
    };
    for ports in [PortForms::DoubleUnderscore, PortForms::OrDash] {
        match Route::parse(path, query, ports) {
            Ok(route) => reads_back(&route),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
});

fn reads_back(route: &Route) {
    let Some(repository) = route.repository() else { return };
    let (rest, query) = format_route(route);
    // Escaping triples the length, and the limit applies to the escaped query.
    if query.len() > 1500 {
        return;
    }
    let expected = Ok(route.clone());
    if let Ok(name) = repository.encoded() {
        let path = format!("/v2/{name}/{rest}");
        assert_eq!(Route::parse(&path, Some(&query), PortForms::default()), expected, "{path}?{query}");
    }
    let (path, registry) = (format!("/v2/{}/{rest}", repository.path()), escaped(repository.registry()));
    let query = format!("ns={registry}&{query}");
    if query.len() <= 2048 {
        assert_eq!(Route::parse(&path, Some(&query), PortForms::default()), expected, "{path}?{query}");
    }
}

/// The part of the path after the repository, and the query, as clients write them.
fn format_route(route: &Route) -> (String, String) {
    match route {
        Route::Manifest { at: TagOrDigest::Tag(tag), .. } => (format!("manifests/{tag}"), String::new()),
        Route::Manifest { at: TagOrDigest::Digest(digest), .. } => {
            // Half of all clients escape the colon.
            (format!("manifests/{}", digest.as_str().replace(':', "%3A")), String::new())
        }
        Route::Blob { digest, .. } => (format!("blobs/{digest}"), String::new()),
        Route::Tags { page: TagPage { limit, after }, .. } => {
            let limit = limit.map(|n| format!("n={n}&")).unwrap_or_default();
            let after = after.as_deref().map(escaped).map(|after| format!("last={after}")).unwrap_or_default();
            ("tags/list".to_owned(), format!("{limit}{after}"))
        }
        Route::Referrers { digest, artifact_type, .. } => {
            let wanted = artifact_type.as_deref().map(escaped);
            (format!("referrers/{digest}"), wanted.map(|it| format!("artifactType={it}")).unwrap_or_default())
        }
        _ => (String::new(), String::new()),
    }
}

fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02x}")).collect()
}
