//! Response plan: the scripted behavior applied to a response before it is sent.

use bytes::Bytes;
use http::{
    StatusCode, Uri,
    header::{CONTENT_LENGTH, LOCATION},
};

use super::{
    Behavior,
    reply::{Incident, Reply},
};

/// The response to send.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) reply: Reply,
    /// An incident after a number of body bytes.
    pub(super) incident: Option<(u64, Incident)>,
    /// Whether `Content-Length` is sent.
    pub(super) known_length: bool,
    /// Whether the body is repeated indefinitely.
    pub(super) endless: bool,
    /// Rate limit of the body.
    pub(super) bytes_per_second: Option<u64>,
}

impl Plan {
    /// Applies `behavior` to `reply`, the correct response to a request for `uri`.
    pub(super) fn new(reply: Reply, behavior: Behavior, uri: &Uri) -> Self {
        let mut plan =
            Self { reply, incident: None, known_length: true, endless: false, bytes_per_second: None };
        let reply = &mut plan.reply;
        match behavior {
            Behavior::Stall { after, until } => plan.incident = Some((after, Incident::Stall(until))),
            Behavior::Truncate { after } => plan.incident = Some((after, Incident::Cut)),
            Behavior::WrongBytes => {
                reply.body = reply.body.iter().map(|byte| byte ^ 0x55).collect::<Vec<_>>().into();
            }
            Behavior::Corrupt { at } => {
                let mut bytes = reply.body.to_vec();
                let byte = usize::try_from(at).ok().and_then(|at| bytes.get_mut(at));
                byte.into_iter().for_each(|byte| *byte ^= 0x55);
                reply.body = bytes.into();
            }
            Behavior::TooManyBytes { extra, chunked } => {
                let more = super::image::random_bytes(1, extra);
                reply.body = [&reply.body, more.as_slice()].concat().into();
                plan.known_length = !chunked;
            }
            Behavior::Flood => (plan.known_length, plan.endless) = (false, true),
            Behavior::Throttle { bytes_per_second } => plan.bytes_per_second = Some(bytes_per_second.max(1)),
            Behavior::Announce(length) => {
                reply.headers.insert(CONTENT_LENGTH, length.into());
                plan.known_length = false;
            }
            Behavior::NoLength => plan.known_length = false,
            Behavior::Headers(changes) => {
                for (name, value) in changes {
                    reply.headers.remove(&name);
                    reply.headers.extend(value.map(|value| (name, value)));
                }
            }
            Behavior::Answer { status, headers, body } => *reply = Reply { status, headers, body },
            Behavior::Redirect(url) => *reply = redirect(&url),
            Behavior::Circle => *reply = redirect(&uri.to_string()),
            Behavior::Normal
            | Behavior::Refuse
            | Behavior::DelayHeaders(_)
            | Behavior::Delay(_)
            | Behavior::IgnoreRange => {}
        }
        plan
    }
}

fn redirect(url: &str) -> Reply {
    Reply::new(StatusCode::TEMPORARY_REDIRECT, Bytes::new()).with(LOCATION.as_str(), url)
}
