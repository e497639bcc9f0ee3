//! What threads share memory through. `tests/fill_model` puts other ones in their place, which try every order of events.

pub(super) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU64, Ordering},
};
