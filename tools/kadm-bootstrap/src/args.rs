//! The tool's own flags.

/// Flags of kadm-bootstrap.
#[derive(clap::Args, Clone, Debug)]
pub struct Flags {
    /// Reset this machine although it may hold data, then set it up again; may be given several times
    #[arg(long, value_name = "NAME", global = true)]
    pub reset_host: Vec<String>,
    /// Make a new cluster although there are signs of an older one
    #[arg(long, global = true)]
    pub new_cluster: bool,
    /// How many workers may be out of service at once during an upgrade
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..), global = true)]
    pub max_unavailable: u16,
    /// How many seconds the pods of one node may take to leave it
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..), global = true)]
    pub drain_timeout: u64,
}

impl Default for Flags {
    fn default() -> Self {
        Flags { reset_host: Vec::new(), new_cluster: false, max_unavailable: 1, drain_timeout: 600 }
    }
}
