//! The tool's own flags and verbs.

use std::path::PathBuf;

use stage::Consent;

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
    /// Merge the operator's access into this kubeconfig too, as a context of the cluster's name
    #[arg(long, value_name = "FILE", global = true)]
    pub merge_kubeconfig: Option<PathBuf>,
    /// Make that context the current one of FILE
    #[arg(long, requires = "merge_kubeconfig", global = true)]
    pub use_context: bool,
}

impl Default for Flags {
    fn default() -> Self {
        Flags {
            reset_host: Vec::new(),
            new_cluster: false,
            max_unavailable: 1,
            drain_timeout: 600,
            merge_kubeconfig: None,
            use_context: false,
        }
    }
}

/// Verbs of kadm-bootstrap beside those that all tools have.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum Verb {
    /// Show when the certificates of the control planes end, or renew them
    Certs {
        /// Renew those that end soon, one control plane at a time, and restart what uses them
        #[arg(long)]
        renew: bool,
        /// What soon means, in days
        #[arg(long, value_name = "DAYS", default_value_t = 90, value_parser = clap::value_parser!(u16).range(1..=300))]
        within: u16,
        /// Whether it asks first, or only shows what it would do
        #[command(flatten)]
        consent: Consent,
    },
    /// List every image that the document needs, one a line
    Images {
        /// Begin each line with the name that its publisher gives it
        #[arg(long)]
        upstream: bool,
    },
    /// Save etcd and the cluster's authorities to DIR, encrypted
    Backup {
        /// Where the file and its manifest go
        #[arg(value_name = "DIR")]
        dir: PathBuf,
        /// The age recipient that it is encrypted to, instead of spec.backup.etcd.recipient
        #[arg(long, value_name = "AGE")]
        recipient: Option<String>,
    },
    /// Make the cluster again from a backup
    Restore {
        /// The encrypted file; its manifest lies beside it
        #[arg(value_name = "FILE")]
        backup: PathBuf,
        /// The file with the age identity that opens it
        #[arg(long, value_name = "KEY")]
        identity: PathBuf,
        /// Whether it asks first, or only shows what it would do
        #[command(flatten)]
        consent: Consent,
    },
}
