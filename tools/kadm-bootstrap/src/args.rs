//! The tool's own flags.

/// Flags of kadm-bootstrap.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Flags {
    /// Reset this machine although it may hold data, then set it up again; may be given several times
    #[arg(long, value_name = "NAME", global = true)]
    pub reset_host: Vec<String>,
    /// Make a new cluster although there are signs of an older one
    #[arg(long, global = true)]
    pub new_cluster: bool,
}
