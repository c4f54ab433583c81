//! The tool's own flags; clap alone, no meaning.

/// Flags of cni-install.
#[derive(clap::Args, Clone, Debug, Default)]
#[group(skip)]
pub struct Flags {
    /// Those of every tool that keeps objects in the cluster.
    #[command(flatten)]
    pub addon: addon::Flags,
    /// With check: have a pod on each node reach every other one, DNS and the API; made for it and removed after it
    #[arg(long, global = true)]
    pub probe: bool,
}
