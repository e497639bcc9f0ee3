//! Every way in which an upstream can fail, and what a client on a connection sees of it.
//!
//! Whatever happens, a transfer that ends as a success has the right bytes; nothing of the fault is in the store; and
//! the next request works once the fault is gone.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test may fail"
)]

mod rig;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER},
};
use kuik_core::{
    content::{Digest, MAX_MANIFEST_BYTES},
    testkit::{Behaviour, Gate, Rule, SampleImage, Target},
};
use kuik_proxy::pull_through::Revalidate;
use rig::{OverTcp, Rig, SHORT, content_files, image_with_layer, options};

/// What a client is to see of a fault.
#[derive(Debug, Clone, Copy)]
enum See {
    /// An error of this status and code, and this `Retry-After`.
    Refused(u16, &'static str, &'static str),
    /// A success that breaks off, or an error where all of the fault was there before the headers went out.
    Broken,
    /// Nothing: the right bytes.
    Right,
}

use See::{Broken, Refused, Right};

const LATER: See = Refused(503, "UNAVAILABLE", "2");
const BAD_GATEWAY: See = Refused(502, "UNAVAILABLE", "");

fn answer(status: u16, headers: &[(HeaderName, &'static str)], body: &'static [u8]) -> Behaviour {
    let header = |(name, value): &(HeaderName, &'static str)| (name.clone(), HeaderValue::from_static(value));
    let headers: HeaderMap = headers.iter().map(header).collect();
    Behaviour::Answer { status: StatusCode::from_u16(status).unwrap(), headers, body: Bytes::from(body) }
}

/// The faults that mean the same wherever they happen.
fn refusals() -> Vec<(&'static str, Behaviour, See)> {
    let html = b"<html>Please log in</html>";
    vec![
        ("closes the connection", Behaviour::Refuse, LATER),
        ("sends no headers", Behaviour::DelayHeaders(Gate::new()), LATER),
        ("401 for ever", answer(401, &[], b""), Refused(401, "UNAUTHORIZED", "")),
        ("403", answer(403, &[], b""), Refused(403, "DENIED", "")),
        ("429", answer(429, &[(RETRY_AFTER, "77")], b""), Refused(429, "TOOMANYREQUESTS", "77")),
        ("429 without a time", answer(429, &[], b""), Refused(429, "TOOMANYREQUESTS", "2")),
        ("500", answer(500, &[], b"oops"), LATER),
        ("503", answer(503, &[(RETRY_AFTER, "9")], b""), LATER),
        ("HTML with 500", answer(500, &[(CONTENT_TYPE, "text/html")], html), LATER),
        ("204", answer(204, &[], b""), BAD_GATEWAY),
        ("a redirect to nowhere", answer(307, &[], b""), BAD_GATEWAY),
    ]
}

struct Fault {
    rig: Rig,
    front: OverTcp,
    target: Target,
    path: String,
    right: Bytes,
}

impl Fault {
    async fn start(target: Target, rest: impl Fn(&SampleImage, &Digest) -> String) -> Self {
        let rig = Rig::with(SHORT, options(Revalidate::Never)).await;
        let (image, layer, bytes) = image_with_layer(1, 100_000);
        rig.upstream.add_image("app", "latest", &image);
        let front = OverTcp::start(rig.proxy.clone()).await;
        let path = rig.path("app", &rest(&image, &layer));
        let right = match target {
            Target::Manifest => image.index().bytes().clone(),
            _ => bytes,
        };
        Self { rig, front, target, path, right }
    }

    async fn shows(&self, name: &str, behaviour: Behaviour, expected: See) {
        self.rig.upstream.clear_script();
        self.rig.upstream.script(Rule::on(self.target).does(behaviour));
        let seen = self.front.ask(Method::GET, &self.path).await;
        let what = format!("{name}: {seen:?}");
        match expected {
            Refused(status, code, retry_after) => {
                assert_eq!((seen.status.as_u16(), seen.code().as_str()), (status, code), "{what}");
                assert_eq!(seen.header("retry-after"), retry_after, "{what}");
                assert!(seen.complete, "{what}");
            }
            Broken if !seen.status.is_success() => {
                assert!(matches!(seen.status.as_u16(), 502 | 503) && seen.code() == "UNAVAILABLE", "{what}");
            }
            Broken => {
                assert!(!seen.complete, "{name}: {} bytes", seen.body.len());
                assert_ne!(seen.body, self.right, "{name}: the last bytes were sent");
            }
            Right => {
                assert!(seen.status.is_success() && seen.complete, "{what}");
                assert_eq!(seen.body, self.right, "{name}");
            }
        }
        if matches!(expected, Right) {
            return;
        }
        self.rig.cache.drain().await;
        let kept = content_files(self.rig.data.path());
        assert!(kept.is_empty(), "{name}: the store kept {kept:?}");
    }

    /// Once the fault is gone, everything is as it should be, and stays so without upstream.
    async fn heals(&self) {
        self.rig.upstream.clear_script();
        for _ in 0..2 {
            let seen = self.front.ask(Method::GET, &self.path).await;
            assert!(seen.status.is_success() && seen.complete, "{seen:?}");
            assert_eq!(seen.body, self.right);
            self.rig.cache.drain().await;
            self.rig.upstream.stop().await;
        }
    }
}

/// Each fault meets a proxy that is new, and one that has met all the others.
async fn table(
    target: Target,
    rest: impl Fn(&SampleImage, &Digest) -> String,
    faults: Vec<(&str, Behaviour, See)>,
) {
    let all = Fault::start(target, &rest).await;
    for (name, behaviour, expected) in faults {
        if matches!(expected, Right) {
            let new = Fault::start(target, &rest).await;
            new.shows(name, behaviour, expected).await;
            new.heals().await;
        } else {
            all.shows(name, behaviour, expected).await;
        }
    }
    all.heals().await;
}

#[tokio::test]
async fn blobs() {
    let mut faults = refusals();
    let gone = answer(404, &[], b"");
    faults.extend([
        ("stalls", Behaviour::Stall { after: 50_000, until: Gate::new() }, Broken),
        ("stalls before the end", Behaviour::Stall { after: 101_000, until: Gate::new() }, Broken),
        ("truncates", Behaviour::Truncate { after: 50_000 }, Broken),
        ("truncates at once", Behaviour::Truncate { after: 1 }, Broken),
        ("sends wrong bytes", Behaviour::WrongBytes, Broken),
        ("sends too much", Behaviour::TooManyBytes { extra: 1, chunked: false }, Broken),
        ("sends far too much", Behaviour::TooManyBytes { extra: 3 << 20, chunked: true }, Broken),
        ("404", gone, Refused(404, "BLOB_UNKNOWN", "")),
        ("HTML with 200", answer(200, &[(CONTENT_TYPE, "text/html")], b"<html>"), Broken),
        ("nothing, and says so", answer(200, &[(CONTENT_LENGTH, "0")], b""), BAD_GATEWAY),
        ("no length", Behaviour::NoLength, Right),
    ]);
    table(Target::Blob, |_, layer| format!("blobs/{layer}"), faults).await;
}

fn manifest_faults() -> Vec<(&'static str, Behaviour, See)> {
    let mut faults = refusals();
    let gone = answer(404, &[], b"");
    faults.extend([
        ("stalls", Behaviour::Stall { after: 10, until: Gate::new() }, LATER),
        ("truncates", Behaviour::Truncate { after: 10 }, LATER),
        ("sends wrong bytes", Behaviour::WrongBytes, BAD_GATEWAY),
        ("sends too much", Behaviour::TooManyBytes { extra: 7, chunked: false }, BAD_GATEWAY),
        ("oversize", Behaviour::TooManyBytes { extra: MAX_MANIFEST_BYTES, chunked: false }, BAD_GATEWAY),
        (
            "oversize, unannounced",
            Behaviour::TooManyBytes { extra: MAX_MANIFEST_BYTES, chunked: true },
            BAD_GATEWAY,
        ),
        ("404", gone, Refused(404, "MANIFEST_UNKNOWN", "")),
        ("HTML with 200", answer(200, &[(CONTENT_TYPE, "text/html")], b"<html>"), BAD_GATEWAY),
        ("nothing, and says so", answer(200, &[(CONTENT_LENGTH, "0")], b""), BAD_GATEWAY),
        ("no length", Behaviour::NoLength, Right),
    ]);
    faults
}

#[tokio::test]
async fn manifests_by_tag() {
    table(Target::Manifest, |_, _| "manifests/latest".to_owned(), manifest_faults()).await;
}

#[tokio::test]
async fn manifests_by_digest() {
    let mut faults = manifest_faults();
    let another = SampleImage::small(9).index().bytes().to_vec();
    faults.push(("another manifest", answer(200, &[], another.leak()), BAD_GATEWAY));
    let rest = |image: &SampleImage, _: &Digest| format!("manifests/{}", image.index().digest());
    table(Target::Manifest, rest, faults).await;
}

#[tokio::test]
async fn an_upstream_that_is_not_there() {
    let fault = Fault::start(Target::Blob, |_, layer| format!("blobs/{layer}")).await;
    fault.rig.upstream.stop().await;
    fault.shows("refuses connections", Behaviour::Normal, LATER).await;
    fault.rig.upstream.resume().await.unwrap();
    fault.heals().await;
}

#[tokio::test]
async fn redirect_loops_end() {
    let fault = Fault::start(Target::Blob, |_, layer| format!("blobs/{layer}")).await;
    let behaviour = Behaviour::Redirect(format!("{}/v2/app/blobs/elsewhere", fault.rig.upstream.url()));
    fault.shows("redirects to itself for ever", behaviour, BAD_GATEWAY).await;
    assert!(fault.rig.upstream.log().len() < 20, "{}", fault.rig.upstream.log().len());
    fault.heals().await;
}

#[tokio::test]
async fn a_head_request_is_refused_as_a_get_is() {
    let fault = Fault::start(Target::Blob, |_, layer| format!("blobs/{layer}")).await;
    for (status, expected) in [(401, 401), (403, 403), (404, 404), (429, 429), (500, 503)] {
        fault.rig.upstream.clear_script();
        fault.rig.upstream.script(Rule::on_all().does(answer(status, &[], b"")));
        for rest in [fault.path.clone(), fault.rig.path("app", "manifests/latest")] {
            let seen = fault.front.ask(Method::HEAD, &rest).await;
            assert_eq!((seen.status.as_u16(), seen.body.len()), (expected, 0), "{rest}");
        }
    }
    fault.heals().await;
}
