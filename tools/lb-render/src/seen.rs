//! What is there: plain data, and how it is looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use fleet::units::Unit;
use fleet::{links, packages, units};
use remote::{Command, Error, Host};
use serde::{Deserialize, Serialize};

use crate::config::{CONFIG, HEADER, digest};
use crate::files;
use crate::runtime::{self, ServerState};

/// The load balancers as they are.
pub type Seen = fleet::View<MachineSeen>;

/// One load balancer as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MachineSeen {
    /// The version of the package; `None` when it is not installed.
    pub version: Option<String>,
    /// haproxy.service.
    pub unit: Unit,
    /// haproxy.cfg.
    pub config: FileSeen,
    /// The digests of the files that configurations refer to, by their paths in our folder.
    pub files: BTreeMap<String, String>,
    /// The machine's IPv4 addresses, the shared one too when it holds it.
    pub addresses: BTreeSet<Ipv4Addr>,
    /// The HAProxy that runs; `None` when its socket does not answer.
    pub running: Option<Running>,
}

/// A configuration file, and whose it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileSeen {
    /// There is none.
    #[default]
    Absent,
    /// Ours, with this digest.
    Ours(String),
    /// As the package brought it.
    Pristine,
    /// Somebody's own.
    Foreign,
}

/// A HAProxy that answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Running {
    /// Its version.
    pub version: String,
    /// Its `description`, which names our configuration.
    pub description: String,
    /// The servers behind it.
    pub servers: Vec<ServerState>,
}

/// Looks at one machine.
///
/// # Errors
/// Transport trouble.
pub async fn machine(host: Host) -> Result<MachineSeen, Error> {
    let (version, unit, config, files, addresses, running) = futures::try_join!(
        packages::version(&host, "haproxy"),
        units::unit(&host, "haproxy.service"),
        host.read(CONFIG),
        files::look(&host),
        links::addresses(&host),
        running(&host),
    )?;
    let config = match config {
        None => FileSeen::Absent,
        Some(text) if text.starts_with(HEADER.as_bytes()) => FileSeen::Ours(digest(&text)),
        Some(_) if pristine(&host, version.is_some()).await? => FileSeen::Pristine,
        Some(_) => FileSeen::Foreign,
    };
    let addresses = addresses.into_keys().collect();
    Ok(MachineSeen { version, unit, config, files, addresses, running })
}

/// What runs, by its own account.
///
/// # Errors
/// Transport trouble.
pub async fn running(host: &Host) -> Result<Option<Running>, Error> {
    let (info, stat) = futures::try_join!(runtime::ask(host, "show info"), runtime::ask(host, "show stat"))?;
    let (Some(info), Some(stat)) = (info, stat) else { return Ok(None) };
    let mut info = runtime::info(&info);
    let mut take = |key: &str| info.remove(key).unwrap_or_default();
    Ok(Some(Running {
        version: take("Version"),
        description: take("description"),
        servers: runtime::servers(&stat),
    }))
}

/// Whether haproxy.cfg is as the package brought it: dpkg compares it with the digest that it recorded, and is
/// silent about a file that is right (dpkg(1), --verify).
async fn pristine(host: &Host, installed: bool) -> Result<bool, Error> {
    if !installed {
        return Ok(false);
    }
    let verify = Command::new("dpkg").args(["--verify", "haproxy"]).sudo();
    let output = host.run(&verify).await?;
    Ok(!output.text().lines().any(|line| line.ends_with(CONFIG)))
}
