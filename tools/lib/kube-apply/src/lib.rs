//! Server-side apply of a manifest set, prune and waits.
