//! Store maintenance: garbage collection, the size limit with eviction, retention, and integrity scrubbing.

pub mod gc;
pub mod quota;
pub mod retention;
pub mod scrub;
