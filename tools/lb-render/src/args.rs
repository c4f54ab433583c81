//! The command line beyond the flags that all tools share.

/// lb-render has no flags of its own.
#[derive(clap::Args, Clone, Debug)]
pub struct Flags {}
