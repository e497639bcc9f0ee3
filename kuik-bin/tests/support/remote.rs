//! A repository of a registry, as a client uses it: whole images are pushed, pulled and compared, and deleted.

use std::net::SocketAddr;

use bytes::Bytes;
use http::Method;
use kuik_core::content::{Digest, Manifest};
use kuik_testkit::SampleImage;

use super::{Client, Lost, Reply};

/// A repository, over a connection of its own.
#[derive(Debug)]
pub(crate) struct Remote {
    client: Client,
    name: String,
}

/// Why something was not done.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The outcome is unknown: the server is down.
    Lost(Lost),
    /// Content that the manifest refers to is missing, so the manifest was rejected.
    Missing(String),
    /// The server says no, as it may not.
    Refused(String),
}

/// An upload of which a part was acknowledged.
#[derive(Debug, Clone)]
pub(crate) struct LeftUpload {
    location: String,
    content: Bytes,
    acknowledged: usize,
}

impl From<Lost> for Failed {
    fn from(lost: Lost) -> Self {
        Self::Lost(lost)
    }
}

impl Remote {
    pub(crate) fn new(address: SocketAddr, name: &str) -> Self {
        Self { client: Client::new(address), name: name.to_owned() }
    }

    /// How many requests were answered.
    pub(crate) fn requests(&self) -> u64 {
        self.client.requests()
    }

    /// Pushes all of an image, and points a tag at it.
    pub(crate) async fn push(&mut self, image: &SampleImage, tag: &str) -> Result<(), Failed> {
        for (digest, content) in image.blobs() {
            self.push_blob(digest, content).await?;
        }
        for manifest in image.manifests() {
            self.put_manifest(manifest.digest().as_str(), manifest).await?;
        }
        self.put_manifest(tag, image.index()).await
    }

    /// Uploads a blob in one request or in three; does nothing if it exists.
    async fn push_blob(&mut self, digest: &Digest, content: &Bytes) -> Result<(), Failed> {
        let found = self.send(Method::HEAD, &format!("blobs/{digest}"), Bytes::new()).await?;
        if expect(found, &[200, 404])?.status == 200 {
            return Ok(());
        }
        if digest.encoded().ends_with(['0', '2', '4', '6', '8']) {
            let whole = format!("blobs/uploads/?digest={digest}");
            expect(self.send(Method::POST, &whole, content.clone()).await?, &[201])?;
            return Ok(());
        }
        let left = self.leave_upload(content).await?;
        self.finish(&left, left.acknowledged).await
    }

    /// Begins an upload, and sends half of it.
    pub(crate) async fn leave_upload(&mut self, content: &Bytes) -> Result<LeftUpload, Failed> {
        let begun = expect(self.send(Method::POST, "blobs/uploads/", Bytes::new()).await?, &[202])?;
        let location = begun.header("location").to_owned();
        let half = content.slice(..content.len() / 2);
        let acknowledged = half.len();
        let sent = self.client.send(Method::PATCH, &location, "application/octet-stream", half).await?;
        expect(sent, &[202])?;
        Ok(LeftUpload { location, content: content.clone(), acknowledged })
    }

    /// Resumes an interrupted upload, from its current offset, which is not before the acknowledged one.
    pub(crate) async fn resume(&mut self, left: &LeftUpload) -> Result<(), Failed> {
        let nothing = Bytes::new();
        let status = self.client.send(Method::GET, &left.location, "text/plain", nothing).await?;
        let status = expect(status, &[204])?;
        let last = status.header("range").strip_prefix("0-").and_then(|last| last.parse::<usize>().ok());
        let offset = last.unwrap() + 1;
        assert!(offset >= left.acknowledged, "{} acknowledged bytes became {offset}", left.acknowledged);
        self.finish(left, offset).await
    }

    async fn finish(&mut self, left: &LeftUpload, offset: usize) -> Result<(), Failed> {
        let (digest, rest) = (Digest::sha256(&left.content), left.content.slice(offset..));
        let end = format!("{}?digest={digest}", left.location);
        expect(self.client.send(Method::PUT, &end, "application/octet-stream", rest).await?, &[201])?;
        Ok(())
    }

    async fn put_manifest(&mut self, at: &str, manifest: &Manifest) -> Result<(), Failed> {
        let target = self.target(&format!("manifests/{at}"));
        let kind = manifest.media_type().as_str().to_owned();
        let reply = self.client.send(Method::PUT, &target, &kind, manifest.bytes().clone()).await?;
        let lacks = matches!(reply.status, 400 | 404) && reply.text().contains("MANIFEST_BLOB_UNKNOWN");
        // A replica is removing content that it refers to: retry.
        let later = reply.status == 503 && !reply.header("retry-after").is_empty();
        if lacks || later {
            return Err(Failed::Missing(format!("{target}: {}", reply.text())));
        }
        expect(reply, &[201]).map(drop)
    }

    /// Returns the digest of a tag; `None` if the tag does not exist.
    pub(crate) async fn resolve(&mut self, tag: &str) -> Result<Option<String>, Failed> {
        let found = self.send(Method::HEAD, &format!("manifests/{tag}"), Bytes::new()).await?;
        let found = expect(found, &[200, 404])?;
        Ok((found.status == 200).then(|| found.header("docker-content-digest").to_owned()))
    }

    /// Pulls all of an image by its digest; every byte is to be right.
    pub(crate) async fn pull(&mut self, image: &SampleImage) -> Result<(), Failed> {
        for manifest in [image.index()].into_iter().chain(image.manifests()) {
            self.get(&format!("manifests/{}", manifest.digest()), manifest.bytes()).await?;
        }
        for (digest, content) in image.blobs() {
            self.get(&format!("blobs/{digest}"), content).await?;
        }
        Ok(())
    }

    async fn get(&mut self, path: &str, content: &Bytes) -> Result<(), Failed> {
        let reply = expect(self.send(Method::GET, path, Bytes::new()).await?, &[200])?;
        assert!(reply.body == *content, "{path} of {} has other bytes", self.name);
        Ok(())
    }

    /// Deletes a tag, or a manifest by its digest; whether it was there.
    pub(crate) async fn delete(&mut self, at: &str) -> Result<bool, Failed> {
        let reply = self.send(Method::DELETE, &format!("manifests/{at}"), Bytes::new()).await?;
        Ok(expect(reply, &[202, 404])?.status == 202)
    }

    /// Every tag.
    pub(crate) async fn tags(&mut self) -> Result<Vec<String>, Failed> {
        let reply = expect(self.send(Method::GET, "tags/list", Bytes::new()).await?, &[200, 404])?;
        let list: serde_json::Value = serde_json::from_slice(&reply.body).unwrap();
        let tags = list["tags"].as_array().cloned().unwrap_or_default();
        Ok(tags.iter().map(|tag| tag.as_str().unwrap().to_owned()).collect())
    }

    async fn send(&mut self, method: Method, path: &str, body: Bytes) -> Result<Reply, Lost> {
        let target = self.target(path);
        self.client.send(method, &target, "application/octet-stream", body).await
    }

    fn target(&self, path: &str) -> String {
        format!("/v2/{}/{path}", self.name)
    }
}

fn expect(reply: Reply, allowed: &[u16]) -> Result<Reply, Failed> {
    if allowed.contains(&reply.status) {
        return Ok(reply);
    }
    Err(Failed::Refused(format!(
        "{} is not one of {allowed:?}: {:?} {}",
        reply.status,
        reply.headers,
        reply.text()
    )))
}
