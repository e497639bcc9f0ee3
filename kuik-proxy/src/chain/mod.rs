//! Several sources as one: the first that is available answers.
//!
//! - [`Chain`]: an ordered list of sources, such as `[cache, origin]`; what a failure of each means is a pure rule
//!   (its role).
//! - [`ReplicaSet`]: the cache, where it has several replicas: each key has one owner among them ([`rank`]), and the
//!   next in rank takes over while the owner is away.
//! - [`Breaker`]: after a failure, who failed is left alone for a while.
//!
//! A source is only given up for the next one while nothing of its answer was handed out: from the first byte of a
//! blob on, its stream is that source's alone.

mod first;
mod rank;
mod replica_set;
mod replicas;

pub use kuik_core::failover::{Breaker, BreakerOptions, Role};

pub use self::{
    first::{Chain, Link},
    rank::rank,
    replica_set::{Connect, Replica, ReplicaSet, ReplicaSetOptions},
    replicas::{DnsReplicas, InvalidEndpoint, Replicas, StaticReplicas},
};
