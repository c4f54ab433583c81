//! The command line beyond the flags that all tools share.

/// vip-keepalive has no flags of its own.
#[derive(clap::Args, Clone, Debug)]
pub struct Flags {}
