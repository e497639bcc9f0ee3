//! Controller runtime: informers, work queue, events, errors and the connection to a cluster.

pub(super) mod connect;
pub(super) mod error;
pub(super) mod event;
pub(super) mod events;
pub(super) mod informer;
pub(super) mod objects;
pub(super) mod work_queue;
