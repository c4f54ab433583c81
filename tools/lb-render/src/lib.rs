//! HAProxy from one JSON document: rendered, tested, swapped, reloaded.
