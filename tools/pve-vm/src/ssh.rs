//! SSH with the pinned host key: the proof that a machine is ready.

use std::net::Ipv4Addr;
use std::time::Duration;

use cluster_doc::Machine;
use remote::{Error, Host, Target};

use crate::options::Properties;
use crate::seen::Guest;
use crate::want::Want;

/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(5);

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It has the key and lets us in.
    Yes,
    /// Nobody answers, and why.
    Silent(String),
    /// It has another key: why, and what helps.
    WrongKey(String, Option<String>),
    /// It has the key and does not let us in: why, and what helps.
    NotLetIn(String, Option<String>),
}

/// The address that a guest was given for its first network card.
pub fn address(guest: &Guest) -> Option<Ipv4Addr> {
    Properties::parse(guest.option("ipconfig0")?).get("ip")?.split('/').next()?.parse().ok()
}

/// A machine as SSH sees it, with these host keys and no others.
pub fn target(want: &Want, name: &str, address: Ipv4Addr, keys: &[String]) -> Target {
    let machine = Machine {
        name: name.to_owned(),
        role: cluster_doc::spec::Role::Worker,
        pool: None,
        ordinal: 0,
        address,
        labels: Default::default(),
        taints: Vec::new(),
        host_keys: keys.to_vec(),
        known_hosts_file: None,
        node: None,
        vmid: None,
        reachable: true,
        leaving: false,
    };
    let mut target = fleet::target(&machine, &want.ssh, &want.site);
    target.connect_timeout = ATTEMPT;
    target
}

/// Connects once.
pub async fn ask(want: &Want, name: &str, address: Ipv4Addr, keys: &[String]) -> Answer {
    match Host::connect(target(want, name, address, keys)).await {
        Ok(host) => {
            host.close().await;
            Answer::Yes
        }
        Err(error) => match error {
            Error::HostKeyChanged { .. } | Error::PinnedKey { .. } => {
                Answer::WrongKey(told(&error), error.hint())
            }
            Error::Auth { .. } | Error::KeyFile { .. } | Error::KeyFileOpen { .. } | Error::Io { .. } => {
                Answer::NotLetIn(told(&error), error.hint())
            }
            error => Answer::Silent(told(&error)),
        },
    }
}

fn told(error: &Error) -> String {
    let mut said = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(source) = next {
        said = format!("{said}: {source}");
        next = source.source();
    }
    said
}
