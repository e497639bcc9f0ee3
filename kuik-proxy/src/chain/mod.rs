//! Ordered content sources with failover: the first available source answers.
//!
//! - [`Chain`]: an ordered list of sources, such as `[cache, origin]`; the role of each, a pure rule, decides what
//!   its failures mean.
//! - [`CacheReplicas`]: a cache with several replicas: each key has one owner among them ([`rank`]), and the next in
//!   rank takes over while the owner is down.
//! - [`Breaker`]: a circuit breaker per replica.
//!
//! Failover to the next source happens only before any part of an answer was returned: from the first byte of a blob
//! on, its stream comes from that source alone.

mod cache_replicas;
mod first;
mod rank;
mod replicas;

pub use kuik_core::failover::{Breaker, BreakerOptions, Role};

pub use self::{
    cache_replicas::{CacheReplicas, CacheReplicasOptions, Connect, Replica},
    first::{Chain, Link},
    rank::rank,
    replicas::{DnsReplicas, InvalidEndpoint, Replicas, StaticReplicas},
};
