//! SSH with the pinned host key: the proof that a machine is ready.

use std::net::Ipv4Addr;
use std::time::Duration;

use cluster_doc::Machine;
use cluster_doc::spec::GuestKind;
use remote::{Error, Host, Target};
use stage::Ctx;

use crate::options::Properties;
use crate::seen::Guest;
use crate::step::At;
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
    let option = if guest.is_container() { "net0" } else { "ipconfig0" };
    Properties::parse(guest.option(option)?).get("ip")?.split('/').next()?.parse().ok()
}

/// A machine as SSH sees it, with these host keys and no others.
pub fn target(want: &Want, name: &str, kind: GuestKind, address: Ipv4Addr, keys: &[String]) -> Target {
    let machine = Machine {
        name: name.to_owned(),
        role: cluster_doc::spec::Role::Worker,
        pool: None,
        ordinal: 0,
        address,
        user: kind.account(),
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

/// What came of meeting a machine whose key is not known whole.
pub enum Met {
    /// It has a key that is believed, and lets us in: the key in OpenSSH form.
    Key(String),
    /// Nobody answers, and why.
    Silent(String),
    /// It has a key that nobody vouches for, or does not let us in: why, and what helps.
    Refused(String, Option<String>),
}

/// Connects once to a machine that is known by the fingerprints of its keys, or, where there are none, by what the
/// operator vouches for: `spec.ssh.knownHostsFile`, or any key with `--accept-new-host-keys`, which is recorded there.
pub async fn meet(want: &Want, ctx: &Ctx, at: &At, address: Ipv4Addr, known: &[String]) -> Met {
    let mut target = target(want, &at.machine, at.kind, address, known);
    target.accept_new = ctx.accept_new_host_keys();
    let error = match Host::connect(target).await {
        Ok(host) => match host.host_key().await {
            Ok(key) => {
                host.close().await;
                return Met::Key(key);
            }
            Err(error) => error,
        },
        Err(error) => error,
    };
    match error {
        Error::HostKeyChanged { .. }
        | Error::HostKeyUnknown { .. }
        | Error::HostKeyRevoked { .. }
        | Error::PinnedKey { .. }
        | Error::Auth { .. }
        | Error::KeyFile { .. }
        | Error::KeyFileOpen { .. }
        | Error::Io { .. } => Met::Refused(told(&error), error.hint()),
        error => Met::Silent(told(&error)),
    }
}

/// Connects once.
pub async fn ask(want: &Want, at: &At, address: Ipv4Addr, keys: &[String]) -> Answer {
    match Host::connect(target(want, &at.machine, at.kind, address, keys)).await {
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
