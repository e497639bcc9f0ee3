//! Audit log of an API server, restricted to writes.

use std::path::Path;

use serde::Deserialize;

use super::super::error::RealPartError;

/// File name of the policy in the server's folder.
pub(super) const POLICY_FILE: &str = "audit.yaml";

/// File name of the log in the server's folder.
pub(super) const LOG_FILE: &str = "audit.log";

/// Logs each write once, when its response is complete.
pub(super) const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, verbs: [get, list, watch]}
- {level: Metadata}
";

/// A completed write request.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct ApiWrite {
    /// The user.
    pub user: String,
    /// `create`, `update`, `patch`, `delete`.
    pub verb: String,
    /// The resource, with its subresource after a `/`.
    pub resource: String,
    /// The name of the object; empty if the log has none.
    pub name: String,
    /// The response status.
    pub status: u16,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    user: User,
    verb: String,
    object_ref: Option<ObjectRef>,
    response_status: Option<Status>,
}

#[derive(Deserialize)]
struct User {
    #[serde(default)]
    username: String,
}

#[derive(Deserialize)]
struct ObjectRef {
    #[serde(default)]
    resource: String,
    subresource: Option<String>,
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    code: u16,
}

/// Reads every write from the log of the server in `folder`. Lines that do not concern objects are skipped.
pub(super) fn writes(folder: &Path) -> Result<Vec<ApiWrite>, RealPartError> {
    let text = std::fs::read_to_string(folder.join(LOG_FILE))?;
    // The last line may be incomplete.
    let whole = text.rfind('\n').map_or("", |end| text.get(..end).unwrap_or_default());
    let mut writes = Vec::new();
    for line in whole.lines() {
        let line: Line = serde_json::from_str(line)
            .map_err(|error| RealPartError::new(format_args!("the audit log has {line:?}: {error}")))?;
        let Some(object) = line.object_ref else { continue };
        let resource = match object.subresource {
            Some(subresource) => format!("{}/{subresource}", object.resource),
            None => object.resource,
        };
        let status = line.response_status.map(|status| status.code).unwrap_or_default();
        writes.push(ApiWrite {
            user: line.user.username,
            verb: line.verb,
            resource,
            name: object.name,
            status,
        });
    }
    Ok(writes)
}
