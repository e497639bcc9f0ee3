//! Specifics of Azure Blob Storage: lists, blocks, and many deletes in one request.

use bytes::Bytes;
use http::{Method, StatusCode};
use percent_encoding::percent_decode_str;

use super::{
    provider::{Asked, BUCKET, Reply, State},
    xml::between,
};

pub(crate) fn answer(state: &State, asked: &Asked) -> Reply {
    let (kind, comp) = (asked.parameter("restype"), asked.parameter("comp"));
    match (&asked.method, asked.key(), kind.as_deref(), comp.as_deref()) {
        (&Method::GET, None, Some("container"), Some("list")) => list(state, asked),
        (&Method::POST, None, Some("container"), Some("batch")) => batch(state, asked),
        // It knows no range that counts from the end.
        (&Method::GET, Some(_), ..) if asked.header("range").is_some_and(|range| range.contains("=-")) => {
            unknown()
        }
        (&Method::GET | &Method::HEAD, Some(key), ..) => state.read(key, asked.header("range")),
        (&Method::PUT, Some(key), _, Some("block")) => {
            let block = asked.parameter("blockid").unwrap_or_default();
            state.parts.lock().unwrap().insert((key.to_owned(), block), asked.body.clone());
            Reply::text(StatusCode::CREATED, "")
        }
        (&Method::PUT, Some(key), _, Some("blocklist")) => {
            state.complete(key, key, &between(&asked.body, "<Uncommitted>", "</Uncommitted>"));
            Reply::text(StatusCode::CREATED, "").with("etag", "\"whole\"")
        }
        (&Method::PUT, Some(key), _, None) => put(state, asked, key),
        _ => unknown(),
    }
}

fn put(state: &State, asked: &Asked, key: &str) -> Reply {
    let new = asked.header("if-none-match") == Some("*");
    let (content, status) = match asked.header("x-ms-copy-source") {
        None if asked.header("x-ms-blob-type") != Some("BlockBlob") => return unknown(),
        None => (asked.body.clone(), StatusCode::CREATED),
        Some(source) => {
            let source = percent_decode_str(source).decode_utf8_lossy();
            let source = source.split_once(&format!("/{BUCKET}/")).map(|(_, key)| key.to_owned());
            let found = source.and_then(|key| state.objects.lock().unwrap().get(&key).cloned());
            let Some(found) = found else { return Reply::text(StatusCode::NOT_FOUND, "") };
            (found.content, StatusCode::ACCEPTED)
        }
    };
    if !state.put(key, content, new) {
        return Reply::text(StatusCode::CONFLICT, "<Error><Code>BlobAlreadyExists</Code></Error>");
    }
    Reply::text(status, "").with("etag", "\"put\"")
}

fn list(state: &State, asked: &Asked) -> Reply {
    let prefix = asked.parameter("prefix").unwrap_or_default();
    let start = asked.parameter("marker").or_else(|| asked.parameter("startFrom")).unwrap_or_default();
    let (page, next) = state.page(&prefix, &start);
    let blobs: String = page
        .iter()
        .map(|(key, object)| {
            format!(
                "<Blob><Name>{key}</Name><Properties><Last-Modified>{}</Last-Modified><Etag>{}</Etag>\
                 <Content-Length>{}</Content-Length><Content-Type>application/octet-stream</Content-Type>\
                 </Properties></Blob>",
                object.date(),
                object.tag(),
                object.content.len()
            )
        })
        .collect();
    let next = next.unwrap_or_default();
    Reply::text(
        StatusCode::OK,
        &format!(
            "<EnumerationResults><Blobs>{blobs}</Blobs><NextMarker>{next}</NextMarker></EnumerationResults>"
        ),
    )
}

/// Each part is a `DELETE` of its own, and is answered on its own.
fn batch(state: &State, asked: &Asked) -> Reply {
    let kind = asked.header("content-type").unwrap_or_default();
    let Some(boundary) = kind.strip_prefix("multipart/mixed; boundary=") else { return unknown() };
    let text = String::from_utf8_lossy(&asked.body).into_owned();
    let mut answer = String::new();
    for part in text.split(&format!("--{boundary}")).filter(|part| part.contains("DELETE ")) {
        let id = between(&Bytes::copy_from_slice(part.as_bytes()), "Content-ID: ", "\r\n").concat();
        let target = between(&Bytes::copy_from_slice(part.as_bytes()), "DELETE ", " HTTP/1.1").concat();
        let target = percent_decode_str(&target).decode_utf8_lossy().into_owned();
        let key = target.strip_prefix(&format!("/{BUCKET}/")).unwrap_or_default();
        let status = match state.objects.lock().unwrap().remove(key) {
            Some(_) => "202 Accepted",
            None => "404 The specified blob does not exist.",
        };
        answer += &format!(
            "--of-the-answer\r\nContent-Type: application/http\r\nContent-ID: {id}\r\n\r\nHTTP/1.1 {status}\r\n\r\n\r\n"
        );
    }
    answer += "--of-the-answer--\r\n";
    Reply::text(StatusCode::ACCEPTED, &answer).with("content-type", "multipart/mixed; boundary=of-the-answer")
}

/// A request that this double does not implement: the test fails with it.
fn unknown() -> Reply {
    Reply::text(StatusCode::BAD_REQUEST, "<Error><Code>InvalidInput</Code></Error>")
}
