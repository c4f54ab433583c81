//! The shell that every tool runs in: streams, flags, plan, executor, failure.
