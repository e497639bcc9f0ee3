//! HTTP server of the scripted registry: accepts connections, applies the script and logs requests.

use std::{
    fmt, io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
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
use parking_lot::{Mutex, MutexGuard};
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

use super::{
    Access, Behavior, Logged, Rule, SampleImage, Target,
    auth::Authenticator,
    content::{Content, Route},
    log::Log,
    plan::Plan,
    reply::ScriptedBody,
};
use kuik_core::{
    content::{Digest, Manifest},
    reference::{InvalidName, RepositoryName},
};

/// Timeout of [`ScriptedRegistry::wait_for`], after which the test fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// An in-process registry with scripted behavior. Dropping it closes its port and its connections.
pub struct ScriptedRegistry {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    address: SocketAddr,
    content: Mutex<Content>,
    rules: Mutex<Vec<Rule>>,
    authenticator: Mutex<Authenticator>,
    log: Arc<Log>,
    connections: AtomicUsize,
}

impl ScriptedRegistry {
    /// Starts an empty, open registry on a free port of `127.0.0.1`. Needs a tokio runtime.
    ///
    /// # Errors
    /// Returns an error if no port is available.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            address,
            content: Mutex::default(),
            rules: Mutex::default(),
            authenticator: Mutex::default(),
            log: Arc::default(),
            connections: AtomicUsize::default(),
        });
        let accepting = Mutex::new(Some(tokio::spawn(accept(listener, Arc::clone(&shared)))));
        Ok(Self { address, shared, accepting })
    }

    /// Closes the port and every connection: further connections are refused.
    pub async fn stop(&self) {
        let accepting = lock(&self.accepting).take();
        if let Some(accepting) = accepting {
            accepting.abort();
            // Resolves once the task and its connections have ended; the abort error is expected.
            let _ = accepting.await;
        }
    }

    /// Opens the same port again, with the same content.
    ///
    /// # Errors
    /// Returns an error if the port is in use.
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
    /// Returns an error if `path` is invalid.
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

    /// Adds a manifest, under a tag if given. An existing tag moves.
    pub fn add_manifest(&self, repository: &str, tag: Option<&str>, manifest: &Manifest) {
        lock(&self.shared.content).add_manifest(repository, tag, manifest);
    }

    /// Adds a blob.
    pub fn add_blob(&self, repository: &str, bytes: impl Into<Bytes>) -> Digest {
        lock(&self.shared.content).add_blob(repository, bytes.into())
    }

    /// Removes a repository with its content.
    pub fn remove(&self, repository: &str) {
        lock(&self.shared.content).remove(repository);
    }

    /// Enables or disables the referrers API; it is enabled by default.
    pub fn set_referrers_api(&self, present: bool) {
        lock(&self.shared.content).lacks_referrers = !present;
    }

    /// Sets the authentication scheme and revokes issued tokens.
    pub fn set_access(&self, access: Access) {
        *lock(&self.shared.authenticator) = Authenticator::new(access);
    }

    /// Overrides the value of `WWW-Authenticate` in refusals.
    pub fn set_challenge(&self, challenge: impl Into<String>) {
        lock(&self.shared.authenticator).challenge = Some(challenge.into());
    }

    /// Revokes every issued token.
    pub fn revoke_tokens(&self) {
        lock(&self.shared.authenticator).revoke();
    }

    /// Appends a rule to the script.
    pub fn script(&self, rule: Rule) {
        lock(&self.shared.rules).push(rule);
    }

    /// Removes all rules.
    pub fn clear_script(&self) {
        lock(&self.shared.rules).clear();
    }

    /// The requests so far.
    #[must_use]
    pub fn log(&self) -> Vec<Logged> {
        self.shared.log.entries()
    }

    /// Number of requests for `target` so far.
    #[must_use]
    pub fn count(&self, target: Target) -> usize {
        self.log().iter().filter(|entry| entry.target == target).count()
    }

    /// Number of accepted connections so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Resolves with the log once it meets `condition`.
    ///
    /// # Panics
    /// Panics if the condition is not met within 20 s: an assertion of the test.
    #[expect(clippy::panic, reason = "it is an assertion, as documented")]
    pub async fn wait_for(&self, condition: impl FnMut(&[Logged]) -> bool) -> Vec<Logged> {
        match tokio::time::timeout(PATIENCE, self.shared.log.wait_for(condition)).await {
            Ok(log) => log,
            Err(_) => panic!("the log did not meet the condition in time: {:#?}", self.log()),
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
    mutex.lock()
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
    // Connection errors are expected with scripted faults.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// Closes the connection without a response.
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
        let behavior = lock(&self.rules)
            .iter_mut()
            .find_map(|rule| {
                let applies = rule.applies(route.target, &parts.method, &path, &parts.headers);
                applies.then(|| rule.behavior.clone())
            })
            .inspect(|_| self.log.update(number, |entry| entry.scripted = true))
            .unwrap_or(Behavior::Normal);
        match &behavior {
            Behavior::Refuse => return Err(NoAnswer),
            Behavior::DelayHeaders(gate) => gate.clone().opened().await,
            Behavior::Delay(time) => tokio::time::sleep(*time).await,
            _ => {}
        }
        let mut headers = parts.headers;
        if matches!(behavior, Behavior::IgnoreRange) {
            headers.remove(RANGE);
        }
        let reply = if route.target == Target::Token {
            lock(&self.authenticator).token(&headers, &sent)
        } else {
            let refusal = lock(&self.authenticator).refuses(&headers, &self.address.to_string(), &path);
            refusal.unwrap_or_else(|| lock(&self.content).answer(&route, &query, &headers))
        };
        let plan = Plan::new(reply, behavior, &parts.uri);
        Ok(self.carry_out(plan, parts.method == Method::HEAD, number))
    }

    /// Builds the planned response.
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
