//! Failover between several sources of content: pure rules without I/O.
//!
//! - [`Role`]: whether a failure is returned or the next source is tried, by the role of the source.
//! - [`Breaker`]: circuit breaker that pauses requests to a failed source.
//!
//! Time and randomness are arguments. The callers are the registry client, which has several upstreams for a
//! repository, and the proxy, which has a cache in front of the origin.

mod breaker;
mod on_error;

pub use self::{
    breaker::{Breaker, BreakerOptions},
    on_error::{OnError, Role, is_unresponsive, most_actionable},
};
