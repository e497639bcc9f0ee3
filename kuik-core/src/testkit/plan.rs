//! What a script makes of an answer, before any of it is sent.

use bytes::Bytes;
use http::{
    StatusCode, Uri,
    header::{CONTENT_LENGTH, LOCATION},
};

use super::{
    Behaviour,
    reply::{Incident, Reply},
};

/// An answer as it is to be sent.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) reply: Reply,
    /// After how many bytes of the body what happens.
    pub(super) incident: Option<(u64, Incident)>,
    /// Whether the length of the body is announced.
    pub(super) known_length: bool,
    /// Whether the body begins again when it has ended, for ever.
    pub(super) endless: bool,
    /// How many bytes may be sent in a second.
    pub(super) bytes_per_second: Option<u64>,
}

impl Plan {
    /// What `behaviour` makes of `reply`, the right answer to a request for `uri`.
    pub(super) fn new(reply: Reply, behaviour: Behaviour, uri: &Uri) -> Self {
        let mut plan =
            Self { reply, incident: None, known_length: true, endless: false, bytes_per_second: None };
        let reply = &mut plan.reply;
        match behaviour {
            Behaviour::Stall { after, until } => plan.incident = Some((after, Incident::Stall(until))),
            Behaviour::Truncate { after } => plan.incident = Some((after, Incident::Cut)),
            Behaviour::WrongBytes => {
                reply.body = reply.body.iter().map(|byte| byte ^ 0x55).collect::<Vec<_>>().into();
            }
            Behaviour::Corrupt { at } => {
                let mut bytes = reply.body.to_vec();
                let byte = usize::try_from(at).ok().and_then(|at| bytes.get_mut(at));
                byte.into_iter().for_each(|byte| *byte ^= 0x55);
                reply.body = bytes.into();
            }
            Behaviour::TooManyBytes { extra, chunked } => {
                let more = super::image::random_bytes(1, extra);
                reply.body = [&reply.body, more.as_slice()].concat().into();
                plan.known_length = !chunked;
            }
            Behaviour::Flood => (plan.known_length, plan.endless) = (false, true),
            Behaviour::Throttle { bytes_per_second } => plan.bytes_per_second = Some(bytes_per_second.max(1)),
            Behaviour::Announce(length) => {
                reply.headers.insert(CONTENT_LENGTH, length.into());
                plan.known_length = false;
            }
            Behaviour::NoLength => plan.known_length = false,
            Behaviour::Headers(changes) => {
                for (name, value) in changes {
                    reply.headers.remove(&name);
                    reply.headers.extend(value.map(|value| (name, value)));
                }
            }
            Behaviour::Answer { status, headers, body } => *reply = Reply { status, headers, body },
            Behaviour::Redirect(url) => *reply = redirect(&url),
            Behaviour::Circle => *reply = redirect(&uri.to_string()),
            Behaviour::Normal
            | Behaviour::Refuse
            | Behaviour::DelayHeaders(_)
            | Behaviour::Delay(_)
            | Behaviour::IgnoreRange => {}
        }
        plan
    }
}

fn redirect(url: &str) -> Reply {
    Reply::new(StatusCode::TEMPORARY_REDIRECT, Bytes::new()).with(LOCATION.as_str(), url)
}
