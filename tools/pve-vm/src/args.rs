//! The tool's own flags; clap alone, no meaning.

/// Flags of pve-vm.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Flags {
    /// Restart machines whose changes wait for it, one of a pool at a time
    #[arg(long, global = true)]
    pub restart: bool,
    /// With destroy: delete only machines that the document no longer has
    #[arg(long, global = true)]
    pub prune: bool,
    /// With destroy: delete the data disks of the machine NAME as well; may be repeated
    #[arg(long, value_name = "NAME", global = true)]
    pub delete_data: Vec<String>,
}
