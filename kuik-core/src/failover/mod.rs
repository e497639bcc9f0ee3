//! What to do when a source of content fails: pure rules, for whoever has several of them.
//!
//! - [`Role`]: what a failure of a source means, by what the source is to the content.
//! - [`Breaker`]: who failed is left alone for a while.
//!
//! Time and chance come in as arguments, and nobody is asked anything: those who ask are the registry client, which
//! has several upstreams for a repository, and the proxy, which has a cache in front of the origin.

mod breaker;
mod verdict;

pub use self::{
    breaker::{Breaker, BreakerOptions},
    verdict::{Role, Verdict, is_silence, most_useful},
};
