//! Upstream faults: for every way in which an upstream can fail, the result for the client, the load on upstream, and
//! the content of the store afterwards.
//!
//! In every case, a successful transfer has the right bytes; nothing of the fault is in the store; and the next
//! request works once the fault is gone.

use std::time::Duration;

use crate::harness::{Harness, OverTcp, SHORT, content_files, image_with_layer, options};
use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Method, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, RETRY_AFTER},
};
use kuik_core::content::{Digest, MAX_MANIFEST_BYTES};
use kuik_proxy::pull_through::Revalidate;
use kuik_testkit::{Access, Behavior, Gate, Rule, SampleImage, Target};

/// Size of the layer in these tests: random bytes, and the overhead of an archive.
const LAYER: usize = 100_000;

/// Maximum blob size.
const LIMIT: u64 = 4 << 20;

/// Expected result for the client.
#[derive(Debug, Clone, Copy)]
enum See {
    /// An error of this status and code, and this `Retry-After`.
    Refused(u16, &'static str, &'static str),
    /// A success that breaks off, or an error if the whole fault happened before the headers were sent.
    Broken,
    /// The right bytes: the fault is invisible.
    Right,
}

/// Load on upstream: at most this many requests, and this many bodies' worth of requested bytes.
#[derive(Debug, Clone, Copy)]
struct Asked(usize, u64);

/// Expected content of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    /// The requested content, available without upstream.
    Whole,
    /// Nothing at all.
    Nothing,
}

use Keep::{Nothing, Whole};
use See::{Broken, Refused, Right};

const LATER: See = Refused(503, "UNAVAILABLE", "2");
const BAD_GATEWAY: See = Refused(502, "UNAVAILABLE", "");

/// A refused request is sent once, or a few times if a retry may help.
const FEW: Asked = Asked(6, 1);
const ONCE: Asked = Asked(1, 1);

/// A row of the tables: upstream's behavior; result for the client, load on upstream, content of the store.
type Row = (&'static str, Vec<Rule>, See, Asked, Keep);

/// On every request.
fn always(behavior: Behavior) -> Vec<Rule> {
    vec![Rule::on_all().does(behavior)]
}

/// One after the other, then correct behavior.
fn once(behaviors: impl IntoIterator<Item = Behavior>) -> Vec<Rule> {
    behaviors.into_iter().map(|behavior| Rule::on_all().times(1).does(behavior)).collect()
}

/// The transfer breaks off in the middle, and each request for the rest gets this behavior.
fn broken_and_then(behavior: Behavior) -> Vec<Rule> {
    vec![
        Rule::on_all().times(1).does(Behavior::Truncate { after: 50_000 }),
        Rule::on_all().ranged(true).does(behavior),
    ]
}

fn answer(status: u16, headers: &[(HeaderName, &'static str)], body: &'static [u8]) -> Behavior {
    Behavior::Answer {
        status: StatusCode::from_u16(status).unwrap(),
        headers: headers
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_static(value)))
            .collect(),
        body: Bytes::from(body),
    }
}

fn header(name: HeaderName, value: &'static str) -> Behavior {
    Behavior::Headers(vec![(name, Some(HeaderValue::from_static(value)))])
}

/// Faults with the same result for every kind of content.
#[rustfmt::skip]
fn refusals() -> Vec<Row> {
    let html = b"<html>Please log in</html>";
    vec![
        ("closes the connection", always(Behavior::Refuse), LATER, FEW, Nothing),
        ("sends no headers", always(Behavior::DelayHeaders(Gate::new())), LATER, FEW, Nothing),
        ("sends its headers late", always(Behavior::Delay(Duration::from_millis(100))), Right, ONCE, Whole),
        ("401 forever", always(answer(401, &[], b"")), Refused(401, "UNAUTHORIZED", ""), FEW, Nothing),
        ("403", always(answer(403, &[], b"")), Refused(403, "DENIED", ""), ONCE, Nothing),
        ("429", always(answer(429, &[(RETRY_AFTER, "77")], b"")), Refused(429, "TOOMANYREQUESTS", "77"), FEW, Nothing),
        ("429 without a time", always(answer(429, &[], b"")), Refused(429, "TOOMANYREQUESTS", "2"), FEW, Nothing),
        ("500", always(answer(500, &[], b"oops")), LATER, FEW, Nothing),
        ("503", always(answer(503, &[(RETRY_AFTER, "9")], b"")), Refused(503, "UNAVAILABLE", "9"), FEW, Nothing),
        ("HTML with 500", always(answer(500, &[(CONTENT_TYPE, "text/html")], html)), LATER, FEW, Nothing),
        ("204", always(answer(204, &[], b"")), BAD_GATEWAY, FEW, Nothing),
        ("206 without a range request", always(answer(206, &[], b"x")), BAD_GATEWAY, FEW, Nothing),
        ("a redirect to nowhere", always(answer(307, &[], b"")), BAD_GATEWAY, FEW, Nothing),
        ("a redirect in circles", always(Behavior::Circle), BAD_GATEWAY, Asked(20, 1), Nothing),
        ("no length", always(Behavior::NoLength), Right, ONCE, Whole),
        ("throttled", always(Behavior::Throttle { bytes_per_second: 200_000 }), Right, ONCE, Whole),
        ("nothing, and announces it", always(answer(200, &[(CONTENT_LENGTH, "0")], b"")), BAD_GATEWAY, FEW, Nothing),
    ]
}

#[rustfmt::skip]
fn blob_faults() -> Vec<Row> {
    let stall = |after| Behavior::Stall { after, until: Gate::new() };
    let cut = |after| Behavior::Truncate { after };
    let slow_down = |time| answer(429, &[(RETRY_AFTER, time)], b"");
    vec![
        ("404", always(answer(404, &[], b"")), Refused(404, "BLOB_UNKNOWN", ""), ONCE, Nothing),
        ("HTML with 200", always(answer(200, &[(CONTENT_TYPE, "text/html")], b"<html>")), Broken, FEW, Nothing),
        // Interrupted transfers that are resumed.
        ("stalls, once", once([stall(50_000)]), Right, Asked(2, 1), Whole),
        ("stalls repeatedly", always(stall(40_000)), Right, Asked(3, 1), Whole),
        ("stalls before the end", always(stall(100_500)), Right, Asked(2, 1), Whole),
        ("never sends a byte of a body", always(stall(0)), Broken, FEW, Nothing),
        ("breaks off, once", once([cut(50_000)]), Right, Asked(2, 1), Whole),
        ("breaks off at the first byte, once", once([cut(1)]), Right, Asked(2, 1), Whole),
        ("breaks off repeatedly", always(cut(30_000)), Right, Asked(4, 1), Whole),
        ("breaks off after every byte", always(cut(1)), Broken, FEW, Nothing),
        ("breaks off, and is down for a moment", once([cut(50_000), Behavior::Refuse, Behavior::Refuse, Behavior::Refuse]), Right, FEW, Whole),
        ("breaks off, and fails for a moment", once([cut(50_000), answer(503, &[], b""), answer(500, &[], b"")]), Right, Asked(4, 1), Whole),
        ("breaks off, and fails", broken_and_then(answer(503, &[], b"")), Broken, FEW, Nothing),
        ("breaks off, and is asked to wait", once([cut(50_000), slow_down("1")]), Right, Asked(3, 1), Whole),
        ("breaks off, and is asked to wait long", broken_and_then(slow_down("77")), Broken, FEW, Nothing),
        ("breaks off, and has lost the blob", broken_and_then(answer(404, &[], b"")), Broken, Asked(2, 1), Nothing),
        ("breaks off, and wants to be paid", broken_and_then(answer(402, &[], b"")), Broken, Asked(2, 1), Nothing),
        ("breaks off, and does not do ranges", broken_and_then(Behavior::IgnoreRange), Right, Asked(2, 2), Whole),
        ("breaks off, and the rest is wrong", broken_and_then(Behavior::WrongBytes), Broken, Asked(2, 1), Nothing),
        ("breaks off, and the rest is of another size, once", once([cut(50_000), header(CONTENT_RANGE, "bytes 50000-999999/1000000")]), Right, Asked(3, 2), Whole),
        ("breaks off, and the rest is of another size", broken_and_then(header(CONTENT_RANGE, "bytes 50000-999999/1000000")), Broken, Asked(6, 4), Nothing),
        ("breaks off, and the rest begins elsewhere", broken_and_then(header(CONTENT_RANGE, "bytes 7-9/102000")), Broken, Asked(2, 1), Nothing),
        ("breaks off, and the rest has another entity tag", broken_and_then(header(ETAG, "\"another\"")), Right, Asked(2, 1), Whole),
        ("breaks off, and the rest comes slowly", broken_and_then(Behavior::Throttle { bytes_per_second: 100_000 }), Right, Asked(2, 1), Whole),
        ("breaks off, and redirects in circles", broken_and_then(Behavior::Circle), Broken, Asked(20, 1), Nothing),
        // Wrong content is never complete.
        ("sends wrong bytes", always(Behavior::WrongBytes), Broken, ONCE, Nothing),
        ("sends a wrong first byte", always(Behavior::Corrupt { at: 0 }), Broken, ONCE, Nothing),
        ("sends a wrong byte", always(Behavior::Corrupt { at: 70_000 }), Broken, ONCE, Nothing),
        ("sends a byte too many", always(Behavior::TooManyBytes { extra: 1, chunked: false }), Broken, ONCE, Nothing),
        ("sends far too much", always(Behavior::TooManyBytes { extra: 3 << 20, chunked: true }), Broken, Asked(1, 40), Nothing),
        ("sends indefinitely", always(Behavior::Flood), Broken, Asked(1, 200), Nothing),
        ("announces less than it has", always(Behavior::Announce(50_000)), Broken, ONCE, Nothing),
        ("announces more than it has", always(Behavior::Announce(200_000)), Broken, FEW, Nothing),
        ("announces more than is accepted", always(Behavior::Announce(LIMIT + 1)), BAD_GATEWAY, ONCE, Nothing),
    ]
}

#[rustfmt::skip]
fn manifest_faults() -> Vec<Row> {
    let too_many = |extra, chunked| always(Behavior::TooManyBytes { extra, chunked });
    vec![
        ("404", always(answer(404, &[], b"")), Refused(404, "MANIFEST_UNKNOWN", ""), ONCE, Nothing),
        ("HTML with 200", always(answer(200, &[(CONTENT_TYPE, "text/html")], b"<html>")), BAD_GATEWAY, FEW, Nothing),
        ("stalls", always(Behavior::Stall { after: 10, until: Gate::new() }), LATER, FEW, Nothing),
        ("breaks off", always(Behavior::Truncate { after: 10 }), LATER, FEW, Nothing),
        ("sends wrong bytes", always(Behavior::WrongBytes), BAD_GATEWAY, FEW, Nothing),
        ("sends a wrong byte", always(Behavior::Corrupt { at: 20 }), BAD_GATEWAY, FEW, Nothing),
        ("sends too much", too_many(7, false), BAD_GATEWAY, FEW, Nothing),
        ("oversize", too_many(MAX_MANIFEST_BYTES, false), BAD_GATEWAY, Asked(6, 100_000), Nothing),
        ("oversize, unannounced", too_many(MAX_MANIFEST_BYTES, true), BAD_GATEWAY, Asked(6, 100_000), Nothing),
        ("sends indefinitely", always(Behavior::Flood), Broken, Asked(6, 100_000), Nothing),
        ("announces less than it has", always(Behavior::Announce(50)), BAD_GATEWAY, FEW, Nothing),
        ("announces more than it has", always(Behavior::Announce(100_000)), LATER, FEW, Nothing),
    ]
}

#[rustfmt::skip]
fn token_faults() -> Vec<Row> {
    vec![
        ("closes the connection", always(Behavior::Refuse), LATER, FEW, Nothing),
        ("sends no headers", always(Behavior::DelayHeaders(Gate::new())), LATER, FEW, Nothing),
        ("500", always(answer(500, &[], b"oops")), LATER, FEW, Nothing),
        ("429", always(answer(429, &[(RETRY_AFTER, "77")], b"")), Refused(429, "TOOMANYREQUESTS", "77"), FEW, Nothing),
        ("a redirect in circles", always(Behavior::Circle), BAD_GATEWAY, Asked(20, 1), Nothing),
        ("sends indefinitely", always(Behavior::Flood), Broken, Asked(6, 100_000), Nothing),
        ("HTML with 200", always(answer(200, &[(CONTENT_TYPE, "text/html")], b"<html>")), BAD_GATEWAY, FEW, Nothing),
        ("fails, once", once([answer(500, &[], b"")]), LATER, FEW, Nothing),
        ("403", always(answer(403, &[], b"")), Refused(403, "DENIED", ""), FEW, Nothing),
    ]
}

struct Fault {
    harness: Harness,
    front: OverTcp,
    target: Target,
    path: String,
    right: Bytes,
}

impl Fault {
    async fn start(target: Target, rest: impl Fn(&SampleImage, &Digest) -> String) -> Self {
        let mut options = options(Revalidate::Never);
        options.max_blob_bytes = LIMIT;
        let harness = Harness::with(SHORT, options).await;
        let (image, layer, bytes) = image_with_layer(1, LAYER);
        harness.upstream.add_image("app", "latest", &image);
        if target == Target::Token {
            harness.upstream.set_access(Access::anonymous_tokens());
        }
        let front = OverTcp::start(harness.proxy.clone()).await;
        let path = harness.path("app", &rest(&image, &layer));
        let right = if path.contains("/manifests/") { image.index().bytes().clone() } else { bytes };
        Self { harness, front, target, path, right }
    }

    async fn shows(&self, (name, script, see, asked, keep): Row) {
        self.harness.upstream.clear_script();
        for rule in script {
            self.harness.upstream.script(rule.about(self.target));
        }
        let before = self.harness.upstream.log().len();
        let seen = self.front.ask(Method::GET, &self.path).await;
        self.harness.cache.drain().await;
        let what = format!("{:?}, {name}: {} {:?}", self.target, seen.status, seen.headers);
        match see {
            Refused(status, code, retry_after) => {
                assert_eq!((seen.status.as_u16(), seen.code().as_str()), (status, code), "{what}");
                assert_eq!(seen.header("retry-after"), retry_after, "{what}");
                assert!(seen.complete, "{what}");
            }
            Broken if !seen.status.is_success() => {
                assert!(matches!(seen.status.as_u16(), 502 | 503) && seen.code() == "UNAVAILABLE", "{what}");
            }
            Broken => {
                assert!(!seen.complete, "{what}: {} bytes", seen.body.len());
                let announced = seen.header("content-length").parse().unwrap_or(usize::MAX);
                assert!(seen.body.len() < announced, "{what}");
                let withheld = announced > self.right.len() || seen.body != self.right;
                assert!(withheld, "{what}: the last bytes were sent");
            }
            Right => {
                assert!(seen.status.is_success() && seen.complete, "{what}: {} bytes", seen.body.len());
                assert!(seen.body == self.right, "{what}");
            }
        }
        let log = &self.harness.upstream.log()[before..];
        let requests = log.iter().filter(|entry| entry.target == self.target);
        let (number, bytes) = requests.fold((0, 0), |(n, sent), entry| (n + 1, sent + entry.bytes_sent));
        // A body that is not read to its end has been sent as far as the buffers allow.
        let most = asked.1 * self.right.len() as u64 + 2048;
        assert!(number <= asked.0, "{what}: upstream was asked {number} times");
        assert!(bytes <= most, "{what}: upstream sent {bytes} bytes, {most} would do");
        let kept = content_files(self.harness.data.path());
        assert_eq!(kept.is_empty(), keep == Nothing, "{what}: the store has {kept:?}");
    }

    /// Once the fault is gone, everything works, and then also without upstream.
    async fn heals(&self) {
        self.harness.upstream.clear_script();
        for _ in 0..2 {
            let seen = self.front.ask(Method::GET, &self.path).await;
            assert!(seen.status.is_success() && seen.complete, "{} {:?}", seen.status, seen.headers);
            assert!(seen.body == self.right);
            self.harness.cache.drain().await;
            self.harness.upstream.stop().await;
        }
    }
}

/// Each fault meets a new proxy; faults that leave nothing in the store also meet one that has seen all the others. A
/// proxy that was refused remembers it for a while, so it recovers later than this waits.
async fn table(target: Target, rest: impl Fn(&SampleImage, &Digest) -> String, rows: Vec<Row>) {
    let all = Fault::start(target, &rest).await;
    for row in rows {
        if matches!(row.2, Refused(403, ..)) {
            Fault::start(target, &rest).await.shows(row).await;
        } else if row.4 == Nothing && !matches!(row.2, Broken) {
            all.shows(row).await;
        } else {
            let new = Fault::start(target, &rest).await;
            new.shows(row).await;
            new.heals().await;
        }
    }
    all.heals().await;
}

fn with(rows: Vec<Row>, more: Vec<Row>) -> Vec<Row> {
    rows.into_iter().chain(more).collect()
}

#[tokio::test]
async fn blobs() {
    table(Target::Blob, |_, layer| format!("blobs/{layer}"), with(refusals(), blob_faults())).await;
}

#[tokio::test]
async fn manifests_by_tag() {
    let rows = with(refusals(), manifest_faults());
    table(Target::Manifest, |_, _| "manifests/latest".to_owned(), rows).await;
}

#[tokio::test]
async fn manifests_by_digest() {
    let another = SampleImage::small(9).index().bytes().to_vec();
    let row = ("another manifest", always(answer(200, &[], another.leak())), BAD_GATEWAY, FEW, Nothing);
    let rows = with(with(refusals(), manifest_faults()), vec![row]);
    table(Target::Manifest, |image, _| format!("manifests/{}", image.index().digest()), rows).await;
}

#[tokio::test]
async fn token_servers() {
    table(Target::Token, |_, layer| format!("blobs/{layer}"), token_faults()).await;
}

#[tokio::test]
async fn unreachable_upstream() {
    let fault = Fault::start(Target::Blob, |_, layer| format!("blobs/{layer}")).await;
    fault.harness.upstream.stop().await;
    fault.shows(("refuses connections", vec![], LATER, Asked(0, 0), Nothing)).await;
    fault.harness.upstream.resume().await.unwrap();
    fault.heals().await;
}

#[tokio::test]
async fn head_is_refused_like_get() {
    let fault = Fault::start(Target::Blob, |_, layer| format!("blobs/{layer}")).await;
    for (status, expected) in [(401, 401), (403, 403), (404, 404), (429, 429), (500, 503)] {
        fault.harness.upstream.clear_script();
        fault.harness.upstream.script(Rule::on_all().does(answer(status, &[], b"")));
        for rest in [fault.path.clone(), fault.harness.path("app", "manifests/latest")] {
            let seen = fault.front.ask(Method::HEAD, &rest).await;
            assert_eq!((seen.status.as_u16(), seen.body.len()), (expected, 0), "{rest}");
        }
    }
    fault.heals().await;
}
