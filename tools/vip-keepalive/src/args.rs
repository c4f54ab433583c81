//! The command line beyond the flags that all tools share.

use clap::ValueEnum;
use stage::Consent;

/// vip-keepalive has no flags of its own.
#[derive(clap::Args, Clone, Debug)]
pub struct Flags {}

/// The verbs beside those that all tools share.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum Verb {
    /// Break the machine that holds the address, and measure for how long clients miss it
    Drill {
        /// What breaks there
        #[arg(long, value_enum, default_value_t = How::Haproxy)]
        how: How,
        /// Whether it asks first
        #[command(flatten)]
        consent: Consent,
    },
}

/// What a drill breaks on the holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum How {
    /// HAProxy is killed; systemd starts it again
    Haproxy,
    /// keepalived is killed; systemd starts it again
    Keepalived,
    /// The interface goes down for some seconds
    Link,
    /// The machine reboots
    Reboot,
}

impl How {
    /// The word on the command line.
    pub fn word(self) -> &'static str {
        match self {
            How::Haproxy => "haproxy",
            How::Keepalived => "keepalived",
            How::Link => "link",
            How::Reboot => "reboot",
        }
    }
}
