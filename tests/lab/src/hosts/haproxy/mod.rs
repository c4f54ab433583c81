//! HAProxy: a configuration that is really parsed, listeners that really forward, checks that are really made.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::fs::Fs;
use super::{Hosts, Machine};

mod check;
pub mod config;
mod proxy;
pub mod stats;
pub mod tls;

pub use config::{Config, Proxy, Report, Server};
pub use proxy::{answer, settle};

/// The configuration file that the package brings.
pub const DEFAULT: &str = "global\n\tlog /dev/log\tlocal0\n\tchroot /var/lib/haproxy\n\tstats socket /run/haproxy/admin.sock mode 660 level admin\n\
\tuser haproxy\n\tgroup haproxy\n\tdaemon\n\ndefaults\n\tlog\tglobal\n\tmode\thttp\n\toption\thttplog\n\toption\tdontlognull\n\
\ttimeout connect 5000\n\ttimeout client  50000\n\ttimeout server  50000\n";

/// The version that the lab's HAProxy tells.
pub const VERSION: &str = "3.0.11-1+deb13u4";

/// A running HAProxy with one configuration. A reload makes a new one.
pub struct Running {
    /// What it runs with.
    pub config: Config,
    /// When it was started.
    pub since: Instant,
    /// Backend and server name to state.
    pub servers: BTreeMap<(String, String), Arc<Backend>>,
    /// What terminates TLS, by the path that `crt` names.
    pub acceptors: BTreeMap<String, TlsAcceptor>,
    /// Connections so far.
    pub connections: AtomicU64,
    next: AtomicU64,
    stop: CancellationToken,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The state of one server.
pub struct Backend {
    /// Its line.
    pub server: Server,
    /// The path that a layer 7 check asks for, and the status that it wants.
    pub ask: Option<(String, Option<u16>)>,
    /// The CA certificate that a check verifies with (PEM); `None` verifies nothing.
    pub ca: Option<String>,
    up: AtomicBool,
    maintenance: AtomicBool,
    /// Sessions so far.
    pub sessions: AtomicU64,
    last: Mutex<Verdict>,
    cut: Mutex<CancellationToken>,
}

/// The outcome of the last check.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// HAProxy's short word, such as `L7OK`.
    pub word: &'static str,
    /// The HTTP status, or nothing.
    pub code: Option<u16>,
    /// How long it took, in ms.
    pub took: u64,
}

impl Backend {
    /// True when connections go there.
    pub fn usable(&self) -> bool {
        self.up.load(Ordering::Relaxed) && !self.maintenance.load(Ordering::Relaxed)
    }

    /// HAProxy's word for the state.
    pub fn status(&self) -> &'static str {
        match () {
            () if self.maintenance.load(Ordering::Relaxed) => "MAINT",
            () if !self.server.check => "no check",
            () if self.up.load(Ordering::Relaxed) => "UP",
            () => "DOWN",
        }
    }

    /// The last check.
    pub fn verdict(&self) -> Verdict {
        guard(&self.last).clone()
    }

    /// Takes it out of use, or back.
    pub fn set_maintenance(&self, on: bool) {
        self.maintenance.store(on, Ordering::Relaxed);
    }

    fn mark(&self, up: bool) -> bool {
        let changed = self.up.swap(up, Ordering::Relaxed) != up;
        if changed && !up && self.server.cut_when_down {
            let mut cut = guard(&self.cut);
            cut.cancel();
            *cut = CancellationToken::new();
        }
        changed
    }
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The ports that are open for HAProxy, by machine.
#[derive(Default)]
pub struct Listeners {
    open: BTreeMap<(u32, SocketAddr), CancellationToken>,
}

/// The PEM text at a path: a file, or the first file of a directory by name.
fn certificate(fs: &Fs, path: &str) -> String {
    let inside = fs.list(path).ok().and_then(|names| names.into_iter().find(|n| !n.starts_with('.')));
    inside.map_or_else(|| fs.text(path), |name| fs.text(&format!("{}/{name}", path.trim_end_matches('/'))))
}

/// Starts HAProxy on a machine, or loads its configuration anew.
///
/// # Errors
/// The line for the log when the configuration is bad; what runs already goes on.
pub fn start(hosts: &Hosts, vmid: u32, machine: &mut Machine) -> Result<(), String> {
    let file = "/etc/haproxy/haproxy.cfg";
    let text = machine
        .fs
        .read(file)
        .map_err(|e| format!("[ALERT] config : Cannot open configuration file/directory {file} : {e}"))?;
    let text = String::from_utf8_lossy(text).into_owned();
    let (config, report) = config::parse(file, &text, &machine.fs);
    if let Some(first) = report.parsing.first().or(report.after.first()) {
        return Err(format!("[ALERT] config : {first}"));
    }
    let nonlocal = machine.sysctl.get("net.ipv4.ip_nonlocal_bind").is_some_and(|v| v == "1");
    let own: Vec<Ipv4Addr> = machine.boot.address.into_iter().chain([Ipv4Addr::LOCALHOST]).collect();
    for proxy in &config.proxies {
        for bind in &proxy.binds {
            let held = hosts.try_holds(vmid, bind.address);
            let local = bind.address.is_none_or(|a| own.contains(&a)) || held;
            if !local && !nonlocal && !bind.transparent {
                let address = bind.address.unwrap_or(Ipv4Addr::UNSPECIFIED);
                return Err(format!(
                    "[ALERT] Binding [{file}:{}] for {} {}: protocol tcpv4: cannot bind socket (Cannot assign requested address) for [{address}:{}].",
                    bind.line, proxy.kind, proxy.name, bind.port
                ));
            }
        }
    }
    let mut servers = BTreeMap::new();
    for proxy in &config.proxies {
        for server in &proxy.servers {
            let ask = proxy.check_path.clone().map(|path| (path, proxy.expect));
            let backend = Backend {
                server: server.clone(),
                ask,
                ca: server.ca_file.as_ref().map(|path| machine.fs.text(path)),
                up: AtomicBool::new(true),
                maintenance: AtomicBool::new(false),
                sessions: AtomicU64::new(0),
                last: Mutex::default(),
                cut: Mutex::new(CancellationToken::new()),
            };
            servers.insert((proxy.name.clone(), server.name.clone()), Arc::new(backend));
        }
    }
    let mut acceptors = BTreeMap::new();
    for bind in config.proxies.iter().flat_map(|p| &p.binds) {
        let Some(path) = &bind.tls else { continue };
        let unusable = || {
            format!(
                "[ALERT] config : parsing [{file}:{}] : 'bind' : no usable certificate in '{path}'.",
                bind.line
            )
        };
        let acceptor = tls::acceptor(&certificate(&machine.fs, path)).ok_or_else(unusable)?;
        acceptors.insert(path.clone(), acceptor);
    }
    let power = machine.power.clone().unwrap_or_default();
    let running = Running {
        config,
        acceptors,
        since: Instant::now(),
        servers,
        connections: AtomicU64::new(0),
        next: AtomicU64::new(0),
        stop: power.child_token(),
    };
    for backend in running.servers.values().filter(|b| b.server.check) {
        hosts.runtime().spawn(check::watch(hosts.clone(), backend.clone(), running.stop.clone()));
    }
    machine.haproxy = Some(Arc::new(running));
    Ok(())
}
