//! The common parts of Amazon S3 and the XML API of Google Cloud Storage, and their differences.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::{Method, StatusCode};
use percent_encoding::percent_decode_str;

use super::provider::{Asked, BUCKET, Kind, Reply, State};

pub(crate) fn answer(state: &State, asked: &Asked) -> Reply {
    let upload = asked.parameter("uploadId");
    match (&asked.method, asked.key()) {
        (&Method::GET, None) => list(state, asked),
        (&Method::POST, None) if state.kind == Kind::S3 && asked.parameter("delete").is_some() => {
            let keys = between(&asked.body, "<Key>", "</Key>");
            state.objects.lock().unwrap().retain(|key, _| !keys.contains(key));
            let deleted = keys.iter().map(|key| format!("<Deleted><Key>{key}</Key></Deleted>"));
            ok(&format!("<DeleteResult>{}</DeleteResult>", deleted.collect::<String>()))
        }
        (&Method::GET | &Method::HEAD, Some(key)) => state.read(key, asked.header("range")),
        (&Method::PUT, Some(key)) => put(state, asked, key, upload),
        (&Method::POST, Some(_)) if asked.parameter("uploads").is_some() => {
            let number = state.uploads.fetch_add(1, Ordering::SeqCst);
            ok(&format!(
                "<InitiateMultipartUploadResult><UploadId>{number}</UploadId></InitiateMultipartUploadResult>"
            ))
        }
        (&Method::POST, Some(key)) => {
            let Some(upload) = upload else { return unknown() };
            state.complete(key, &upload, &between(&asked.body, "<PartNumber>", "</PartNumber>"));
            ok("<CompleteMultipartUploadResult><ETag>\"whole\"</ETag></CompleteMultipartUploadResult>")
        }
        (&Method::DELETE, Some(key)) => match upload {
            Some(upload) => {
                state.parts.lock().unwrap().retain(|(of, _), _| *of != upload);
                Reply::text(StatusCode::NO_CONTENT, "")
            }
            None if state.objects.lock().unwrap().remove(key).is_none() && state.kind == Kind::Google => {
                Reply::text(StatusCode::NOT_FOUND, "<Error><Code>NoSuchKey</Code></Error>")
            }
            None => Reply::text(StatusCode::NO_CONTENT, ""),
        },
        _ => unknown(),
    }
}

fn put(state: &State, asked: &Asked, key: &str, upload: Option<String>) -> Reply {
    if let (Some(upload), Some(part)) = (upload, asked.parameter("partNumber")) {
        state.parts.lock().unwrap().insert((upload, part), asked.body.clone());
        return ok("").with("etag", "\"part\"");
    }
    let (copied, new) = match state.kind {
        Kind::Google => {
            (asked.header("x-goog-copy-source"), asked.header("x-goog-if-generation-match") == Some("0"))
        }
        _ => (asked.header("x-amz-copy-source"), asked.header("if-none-match") == Some("*")),
    };
    let content = match copied {
        None => asked.body.clone(),
        Some(source) => {
            let source = percent_decode_str(source).decode_utf8_lossy();
            let source =
                source.trim_start_matches('/').strip_prefix(BUCKET).and_then(|key| key.strip_prefix('/'));
            let found = source.and_then(|key| state.objects.lock().unwrap().get(key).cloned());
            let Some(found) = found else {
                return Reply::text(StatusCode::NOT_FOUND, "<Error><Code>NoSuchKey</Code></Error>");
            };
            found.content
        }
    };
    if !state.put(key, content, new) {
        return Reply::text(
            StatusCode::PRECONDITION_FAILED,
            "<Error><Code>PreconditionFailed</Code></Error>",
        );
    }
    let result =
        if copied.is_some() { "<CopyObjectResult><ETag>\"copy\"</ETag></CopyObjectResult>" } else { "" };
    ok(result).with("etag", "\"put\"")
}

fn list(state: &State, asked: &Asked) -> Reply {
    if asked.parameter("list-type").as_deref() != Some("2") || asked.parameter("delimiter").is_some() {
        return unknown();
    }
    let prefix = asked.parameter("prefix").unwrap_or_default();
    // The next page starts at its token, and the keys after a given key exclude that key.
    let after = asked.parameter("start-after").map(|key| key + "\0");
    let start = asked.parameter("continuation-token").or(after).unwrap_or_default();
    let (page, next) = state.page(&prefix, &start);
    let contents: String = page
        .iter()
        .map(|(key, object)| {
            format!(
                "<Contents><Key>{key}</Key><LastModified>{}</LastModified><ETag>{}</ETag><Size>{}</Size></Contents>",
                object.modified,
                object.tag(),
                object.content.len()
            )
        })
        .collect();
    let next =
        next.map(|key| format!("<NextContinuationToken>{key}</NextContinuationToken>")).unwrap_or_default();
    ok(&format!("<ListBucketResult>{contents}{next}</ListBucketResult>"))
}

fn ok(text: &str) -> Reply {
    Reply::text(StatusCode::OK, text)
}

/// A request that this double does not implement: the test fails with it.
fn unknown() -> Reply {
    Reply::text(StatusCode::BAD_REQUEST, "<Error><Code>InvalidRequest</Code></Error>")
}

/// Returns every text between two marks.
pub(crate) fn between(body: &Bytes, start: &str, end: &str) -> Vec<String> {
    let text = String::from_utf8_lossy(body);
    text.split(start).skip(1).filter_map(|rest| Some(rest.split_once(end)?.0.to_owned())).collect()
}
