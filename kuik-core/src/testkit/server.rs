//! The registry itself: accepts connections, answers or misbehaves, and logs.

use std::{
    fmt, io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{
    Method, Request, Response,
    header::{CONTENT_LENGTH, RANGE},
};
use http_body_util::{BodyExt as _, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

use super::{
    Access, Behaviour, Logged, Rule, SampleImage, Target,
    auth::Door,
    content::{Content, Route},
    log::Log,
    plan::Plan,
    reply::ScriptedBody,
};
use crate::{
    content::{Digest, Manifest},
    reference::{InvalidName, RepositoryName},
};

/// How long [`ScriptedRegistry::wait_for`] waits before it fails the test.
const PATIENCE: Duration = Duration::from_secs(20);

/// A registry in this process that does what its script says. Dropping it closes its port and its connections.
pub struct ScriptedRegistry {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    address: SocketAddr,
    content: Mutex<Content>,
    rules: Mutex<Vec<Rule>>,
    door: Mutex<Door>,
    log: Arc<Log>,
    connections: AtomicUsize,
}

impl ScriptedRegistry {
    /// Starts an empty, open registry on a free port of `127.0.0.1`. Needs a tokio runtime.
    ///
    /// # Errors
    /// Where no port can be had.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            address,
            content: Mutex::default(),
            rules: Mutex::default(),
            door: Mutex::default(),
            log: Arc::default(),
            connections: AtomicUsize::default(),
        });
        let accepting = Mutex::new(Some(tokio::spawn(accept(listener, Arc::clone(&shared)))));
        Ok(Self { address, shared, accepting })
    }

    /// Closes the port and every connection: from now on, connections are refused.
    pub async fn stop(&self) {
        let accepting = lock(&self.accepting).take();
        if let Some(accepting) = accepting {
            accepting.abort();
            // Ends as soon as the task and its connections are gone; that it was aborted is no news.
            let _ = accepting.await;
        }
    }

    /// Opens the same port again, with the same content.
    ///
    /// # Errors
    /// Where somebody else has taken the port.
    pub async fn resume(&self) -> io::Result<()> {
        self.stop().await;
        let listener = TcpListener::bind(self.address).await?;
        *lock(&self.accepting) = Some(tokio::spawn(accept(listener, Arc::clone(&self.shared))));
        Ok(())
    }

    /// Host and port: `127.0.0.1:34567`.
    #[must_use]
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// The base URL: `http://127.0.0.1:34567`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The full name of a repository in this registry.
    ///
    /// # Errors
    /// Where `path` is not a valid one.
    pub fn repository(&self, path: &str) -> Result<RepositoryName, InvalidName> {
        RepositoryName::new(&self.host(), path)
    }

    /// Adds an image with all its manifests and blobs, under a tag.
    pub fn add_image(&self, repository: &str, tag: &str, image: &SampleImage) {
        let mut content = lock(&self.shared.content);
        content.add_manifest(repository, Some(tag), image.index());
        for manifest in image.manifests() {
            content.add_manifest(repository, None, manifest);
        }
        for bytes in image.blobs().values() {
            content.add_blob(repository, bytes.clone());
        }
    }

    /// Adds a manifest, under a tag where one is given. A tag that is there already moves.
    pub fn add_manifest(&self, repository: &str, tag: Option<&str>, manifest: &Manifest) {
        lock(&self.shared.content).add_manifest(repository, tag, manifest);
    }

    /// Adds a blob.
    pub fn add_blob(&self, repository: &str, bytes: impl Into<Bytes>) -> Digest {
        lock(&self.shared.content).add_blob(repository, bytes.into())
    }

    /// Takes a repository away, with all that is in it.
    pub fn remove(&self, repository: &str) {
        lock(&self.shared.content).remove(repository);
    }

    /// Whether the registry has a referrers API; it has one at first.
    pub fn set_referrers_api(&self, present: bool) {
        lock(&self.shared.content).lacks_referrers = !present;
    }

    /// Says who may read. Tokens that were issued before are void.
    pub fn set_access(&self, access: Access) {
        *lock(&self.shared.door) = Door::new(access);
    }

    /// The value of `WWW-Authenticate` in refusals, instead of the usual one.
    pub fn set_challenge(&self, challenge: impl Into<String>) {
        lock(&self.shared.door).challenge = Some(challenge.into());
    }

    /// Makes every token that was issued invalid.
    pub fn revoke_tokens(&self) {
        lock(&self.shared.door).revoke();
    }

    /// Adds a rule to the script, behind those that are there.
    pub fn script(&self, rule: Rule) {
        lock(&self.shared.rules).push(rule);
    }

    /// Takes all rules away.
    pub fn clear_script(&self) {
        lock(&self.shared.rules).clear();
    }

    /// Everything that was asked so far.
    #[must_use]
    pub fn log(&self) -> Vec<Logged> {
        self.shared.log.entries()
    }

    /// How many requests about `target` there were so far.
    #[must_use]
    pub fn count(&self, target: Target) -> usize {
        self.log().iter().filter(|entry| entry.target == target).count()
    }

    /// How many connections were accepted so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Resolves with the log once it fulfils `condition`.
    ///
    /// # Panics
    /// Where it does not within 20 s: an assertion of the test.
    #[expect(clippy::panic, reason = "it is an assertion, as documented")]
    pub async fn wait_for(&self, condition: impl FnMut(&[Logged]) -> bool) -> Vec<Logged> {
        match tokio::time::timeout(PATIENCE, self.shared.log.wait_for(condition)).await {
            Ok(log) => log,
            Err(_) => panic!("the log never showed what was waited for: {:#?}", self.log()),
        }
    }
}

impl Drop for ScriptedRegistry {
    fn drop(&mut self) {
        if let Some(accepting) = lock(&self.accepting).take() {
            accepting.abort();
        }
    }
}

impl fmt::Debug for ScriptedRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedRegistry").field("address", &self.address).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Accepts connections until it is aborted; its connections end with it.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    shared.connections.fetch_add(1, Ordering::SeqCst);
                    connections.spawn(serve(stream, Arc::clone(&shared)));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { shared.respond(request).await }
    });
    // A connection that ends in an error is what scripts are for.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// The connection is to be closed without an answer.
#[derive(Debug)]
struct NoAnswer;

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the script says to close the connection")
    }
}

impl std::error::Error for NoAnswer {}

impl Shared {
    async fn respond(&self, request: Request<Incoming>) -> Result<Response<ScriptedBody>, NoAnswer> {
        let (parts, body) = request.into_parts();
        let sent = Limited::new(body, 1 << 20).collect().await.map(http_body_util::Collected::to_bytes);
        let sent = String::from_utf8_lossy(&sent.unwrap_or_default()).into_owned();
        let path = parts.uri.path().to_owned();
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let route = Route::of(&path);
        let number = self.log.add(Logged {
            target: route.target,
            method: parts.method.clone(),
            path: path.clone(),
            query: query.clone(),
            headers: parts.headers.clone(),
            body: sent.clone(),
            scripted: false,
            status: None,
            bytes_sent: 0,
            finished: false,
        });
        let behaviour = lock(&self.rules)
            .iter_mut()
            .find_map(|rule| {
                let applies = rule.applies(route.target, &parts.method, &path, &parts.headers);
                applies.then(|| rule.behaviour.clone())
            })
            .inspect(|_| self.log.update(number, |entry| entry.scripted = true))
            .unwrap_or(Behaviour::Normal);
        match &behaviour {
            Behaviour::Refuse => return Err(NoAnswer),
            Behaviour::DelayHeaders(gate) => gate.clone().opened().await,
            Behaviour::Delay(time) => tokio::time::sleep(*time).await,
            _ => {}
        }
        let mut headers = parts.headers;
        if matches!(behaviour, Behaviour::IgnoreRange) {
            headers.remove(RANGE);
        }
        let reply = if route.target == Target::Token {
            lock(&self.door).token(&headers, &sent)
        } else {
            let refusal = lock(&self.door).refuses(&headers, &self.address.to_string(), &path);
            refusal.unwrap_or_else(|| lock(&self.content).answer(&route, &query, &headers))
        };
        let plan = Plan::new(reply, behaviour, &parts.uri);
        Ok(self.carry_out(plan, parts.method == Method::HEAD, number))
    }

    /// The answer as it was planned.
    fn carry_out(&self, mut plan: Plan, head: bool, number: usize) -> Response<ScriptedBody> {
        if plan.known_length && !plan.reply.headers.contains_key(CONTENT_LENGTH) {
            plan.reply.headers.insert(CONTENT_LENGTH, plan.reply.body.len().into());
        }
        if head {
            plan.reply.body = Bytes::new();
            plan = Plan { incident: None, known_length: false, endless: false, ..plan };
        }
        let status = plan.reply.status;
        self.log.update(number, |entry| entry.status = Some(status));
        let headers = std::mem::take(&mut plan.reply.headers);
        let mut response = Response::new(ScriptedBody::new(plan, Arc::clone(&self.log), number));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}
