//! The tool's own flags and verbs; clap alone, no meaning.

use stage::Consent;

/// Flags of pve-vm.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Flags {
    /// Restart machines whose changes wait for it, one of a pool at a time
    #[arg(long, global = true)]
    pub restart: bool,
    /// With destroy: delete only machines that the document no longer has
    #[arg(long, global = true)]
    pub prune: bool,
    /// With destroy: delete the data disks of the machine NAME as well, and lift its protection; may be repeated
    #[arg(long, value_name = "NAME", global = true)]
    pub delete_data: Vec<String>,
    /// With destroy: delete the templates too that pve-vm made
    #[arg(long, global = true)]
    pub templates: bool,
    /// Make templates anew when the image that the document names is another one
    #[arg(long, global = true)]
    pub refresh_templates: bool,
}

/// Verbs of pve-vm.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum Verb {
    /// Print the least privileges that the document needs, as pveum lines
    Role {
        /// The release of Proxmox VE
        #[arg(long, value_name = "RELEASE", value_enum, default_value = "9")]
        release: Release,
    },
    /// Print the machines for other tools and for eyes
    Inventory {
        /// The form
        #[arg(long, value_name = "FORM", value_enum, default_value = "table")]
        format: Form,
    },
    /// Make a lost machine anew: same name, address and id, a new host key
    Replace {
        /// The machine
        #[arg(value_name = "NAME")]
        name: String,
        /// Asks.
        #[command(flatten)]
        consent: Consent,
    },
    /// Propose migrations that spread the machines evenly again
    Rebalance,
    /// Take a snapshot of each machine of a pool
    Snapshot {
        /// The pool of the document
        #[arg(value_name = "POOL")]
        pool: String,
        /// The snapshot's name
        #[arg(value_name = "SNAPSHOT")]
        name: String,
    },
    /// Set each machine of a pool back to a snapshot
    Rollback {
        /// The pool of the document
        #[arg(value_name = "POOL")]
        pool: String,
        /// The snapshot's name
        #[arg(value_name = "SNAPSHOT")]
        name: String,
        /// Asks.
        #[command(flatten)]
        consent: Consent,
    },
    /// List the snapshots of the machines
    Snapshots {
        /// Only those of this pool
        #[arg(value_name = "POOL")]
        pool: Option<String>,
    },
}

/// A release of Proxmox VE; their privileges have other names.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// Proxmox VE 8
    #[value(name = "8")]
    V8,
    /// Proxmox VE 9
    #[value(name = "9")]
    V9,
}

/// A form of the inventory.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For eyes
    Table,
    /// An inventory of Ansible, in YAML
    Ansible,
    /// A part of ~/.ssh/config
    SshConfig,
    /// Lines of ~/.ssh/known_hosts
    KnownHosts,
    /// Lines of /etc/hosts
    Hosts,
    /// A graph in Mermaid's language
    Mermaid,
    /// A graph in Graphviz's language
    Dot,
}
