//! Whether the lock that is held on a host still stands.

use std::sync::atomic::{AtomicBool, Ordering};

/// Whether a lock still stands.
#[derive(Debug, Default)]
pub(crate) struct Held {
    lost: AtomicBool,
}

impl Held {
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    pub(crate) fn lose(&self) {
        self.lost.store(true, Ordering::Release);
    }
}
