//! haproxy.cfg as data and text.

use std::net::Ipv4Addr;

use serde::Serialize;
use sha2::{Digest as _, Sha256};
use stage::Failure;

/// The first line of every file of ours.
pub const HEADER: &str = "# Managed by kubeline (lb-render). Changes here are overwritten.";
/// The file that HAProxy reads on Debian.
pub const CONFIG: &str = "/etc/haproxy/haproxy.cfg";
/// Where a configuration is tested before it is swapped in; a run that dies meanwhile leaves it to the next boot.
pub const CANDIDATE: &str = "/run/kubeline/haproxy.cfg";
/// The runtime socket: not the one of Debian's own configuration, for a reload takes a socket over with the mode that it
/// has, and that one's is 660.
pub const SOCKET: &str = "/run/haproxy/kubeline.sock";
/// What HAProxy answers of itself, whatever its backends do.
pub const MONITOR: &str = "/healthz";

const TEMPLATE: &str = include_str!("../templates/haproxy.cfg.j2");

/// Everything that one machine's haproxy.cfg depends on.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The machine's own address.
    pub address: Ipv4Addr,
    /// The port of statistics, metrics and the monitor.
    pub stats_port: u16,
    /// The Kubernetes API; `None` without control planes.
    pub api: Option<Api>,
    /// HTTP and HTTPS; `None` without workers.
    pub web: Option<Web>,
    /// TLS ends here; `None` passes it through.
    pub terminate: Option<Terminate>,
    /// Vault; `None` without it.
    pub vault: Option<Vault>,
    /// Ports of the operator's own.
    pub listeners: Vec<Listener>,
}

/// The way to Vault.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Vault {
    /// The port on the shared address.
    pub listen: u16,
    /// The port of the servers.
    pub port: u16,
    /// The path of the CA that they are verified against; `None` verifies nothing.
    pub ca: Option<String>,
    /// The name that their certificates have; `None` for any that the CA signed.
    pub name: Option<String>,
    /// The servers.
    pub servers: Vec<Server>,
}

/// The way to something of the operator's own.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Listener {
    /// Its proxy's name.
    pub name: String,
    /// True when it is understood as HTTP.
    pub http: bool,
    /// The port here and there.
    pub pair: Pair,
    /// The path of the health check; `None` connects.
    pub check: Option<String>,
    /// The machines.
    pub servers: Vec<Server>,
}

/// The way to the API servers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Api {
    /// The port on the shared address.
    pub listen: u16,
    /// The port of the API servers.
    pub port: u16,
    /// The path of the CA that they are verified against; `None` verifies nothing.
    pub ca: Option<String>,
    /// The control planes.
    pub servers: Vec<Server>,
}

/// The way to the ingress.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Web {
    /// HTTP.
    pub http: Pair,
    /// HTTPS.
    pub https: Pair,
    /// The port of the health check.
    pub ping: u16,
    /// What a server line ends with for the PROXY protocol.
    pub proxy: &'static str,
    /// The workers.
    pub servers: Vec<Server>,
}

/// A port here and a port there.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Pair {
    /// On the shared address.
    pub listen: u16,
    /// On the workers.
    pub port: u16,
}

/// A machine behind the load balancers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Server {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: Ipv4Addr,
}

/// TLS that ends at the load balancers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Terminate {
    /// The folder of the certificates.
    pub certificates: String,
    /// Seconds of Strict-Transport-Security; 0 sends none.
    pub hsts: u32,
}

#[derive(Serialize)]
struct Data<'a> {
    header: &'static str,
    mark: String,
    socket: &'static str,
    monitor: &'static str,
    address: Ipv4Addr,
    stats_port: u16,
    api: Option<&'a Api>,
    web: Option<&'a Web>,
    terminate: Option<&'a Terminate>,
    vault: Option<&'a Vault>,
    listeners: &'a [Listener],
}

/// A configuration as text, and its digest.
#[derive(Clone, Debug, PartialEq)]
pub struct Text {
    /// The whole file.
    pub text: String,
    /// Names its content and that of the files it refers to, for their folder is named by theirs. HAProxy tells it as
    /// its `description`, so that what runs can be told from what lies on the disk.
    pub digest: String,
}

impl Config {
    /// The file's text.
    ///
    /// # Errors
    /// A template that does not render is an internal fault.
    pub fn text(&self) -> Result<Text, Failure> {
        let digest = digest(self.render(&mark(""))?.as_bytes())[..16].to_owned();
        Ok(Text { text: self.render(&mark(&digest))?, digest })
    }

    fn render(&self, mark: &str) -> Result<String, Failure> {
        let data = Data {
            header: HEADER,
            mark: mark.to_owned(),
            socket: SOCKET,
            monitor: MONITOR,
            address: self.address,
            stats_port: self.stats_port,
            api: self.api.as_ref(),
            web: self.web.as_ref(),
            terminate: self.terminate.as_ref(),
            vault: self.vault.as_ref(),
            listeners: &self.listeners,
        };
        let template = render::Template::new("haproxy.cfg", TEMPLATE);
        template.render(&data).map_err(|e| Failure::internal("cannot render haproxy.cfg").caused_by(&e))
    }

    /// The servers as HAProxy lists them, `backend/server`.
    pub fn servers(&self) -> Vec<String> {
        let of = |backend: &str, servers: &[Server]| -> Vec<String> {
            servers.iter().map(|s| format!("{backend}/{}", s.name)).collect()
        };
        let mut all = self.api.as_ref().map(|a| of("api", &a.servers)).unwrap_or_default();
        if let Some(web) = &self.web {
            all.extend(of("http", &web.servers));
            all.extend(of("https", &web.servers));
        }
        all.extend(self.vault.iter().flat_map(|v| of("vault", &v.servers)));
        all.extend(self.listeners.iter().flat_map(|l| of(&l.name, &l.servers)));
        all
    }

    /// The ports on the shared address, by what they are for.
    pub fn ports(&self) -> Vec<(&str, u16)> {
        let api = self.api.iter().map(|a| ("api", a.listen));
        let web = self.web.iter().flat_map(|w| [("http", w.http.listen), ("https", w.https.listen)]);
        let vault = self.vault.iter().map(|v| ("vault", v.listen));
        let own = self.listeners.iter().map(|l| (l.name.as_str(), l.pair.listen));
        api.chain(web).chain(vault).chain(own).collect()
    }
}

/// What HAProxy's `description` says for a digest.
pub fn mark(digest: &str) -> String {
    format!("kubeline {digest}")
}

/// SHA-256 in hexadecimal.
pub fn digest(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|b| format!("{b:02x}")).collect()
}
