//! What the operator wants: every refusal of input is here.

use std::collections::BTreeMap;

use cluster_doc::spec::{
    BalanceMode, Ingress, Kubernetes, ListenerMode, LoadBalancer, Packages, Role, Spec, Vip,
};
use cluster_doc::{Document, Exit, FilePath, Machine, Pointer, Refusals, Section};
use fleet::{Route, Wanted};
use stage::{Failure, Site};

use crate::config::{Api, Config, Listener, Pair, Server, Terminate, Text, Vault, Web};
use crate::files::{CA, CERTIFICATES, Files, VAULT_CA};
use crate::kubeconfig;

/// The sections that lb-render reads.
pub const READS: &[Section] = &[
    Section::Network,
    Section::Vip,
    Section::Ssh,
    Section::Pools,
    Section::Machines,
    Section::LoadBalancer,
    Section::Kubernetes,
    Section::Ingress,
    Section::Packages,
];

/// HAProxy on each load balancer.
pub struct Want {
    /// The load balancers in the document's order.
    pub balancers: Vec<Balancer>,
    /// The shared address.
    pub vip: Vip,
    /// Where packages come from.
    pub packages: Packages,
    /// What the configurations refer to: the cluster's CA once there is a cluster, Vault's, and certificates with
    /// their keys when TLS ends here.
    pub files: Files,
    /// How the machines are reached; a document without `spec.ssh` can only be rendered.
    pub route: Result<Route, Failure>,
}

/// One load balancer.
pub struct Balancer {
    /// Its name.
    pub name: String,
    /// What its HAProxy does.
    pub config: Config,
    /// haproxy.cfg.
    pub text: Text,
}

impl Wanted for Want {
    fn route(&self) -> Result<&Route, Failure> {
        self.route.as_ref().map_err(Clone::clone)
    }
}

impl Want {
    /// The load balancer of this name.
    ///
    /// # Errors
    /// Exit 1: a step names only machines of the document.
    pub fn balancer(&self, name: &str) -> Result<&Balancer, Failure> {
        let found = self.balancers.iter().find(|b| b.name == name);
        found.ok_or_else(|| Failure::internal(format!("{name} is no load balancer")))
    }
}

/// The meaning of a document.
///
/// # Errors
/// Exit 3 for the document, exit 4 for files that it names.
pub fn want(doc: &Document, site: &Site) -> Result<Want, Failure> {
    let spec = doc.spec(READS)?;
    let vip = spec.vip().map_err(|e| doc.locate(e))?.clone();
    let machines = doc.machines(&spec);
    let of = |role: Role| machines.iter().filter(move |m| m.role == role);
    let balancers: Vec<&Machine> = of(Role::LoadBalancer).filter(|m| !m.leaving).collect();
    if balancers.is_empty() {
        return Err(nothing(doc, &spec, "holds no machine of the role \"load-balancer\"; add two or three"));
    }
    // A machine that leaves is listed until it is gone: its health check decides.
    let servers = |role: Role| -> Vec<Server> {
        of(role).map(|m| Server { name: m.name.clone(), address: m.address }).collect()
    };
    let (planes, workers) = (servers(Role::ControlPlane), servers(Role::Worker));
    let own = spec.load_balancer.as_ref().is_some_and(|b| b.vault.is_some() || !b.listeners.is_empty());
    if planes.is_empty() && workers.is_empty() && !own {
        return Err(nothing(doc, &spec, "holds no control plane and no worker: there is nothing to balance"));
    }
    let balancer = spec.load_balancer.clone().unwrap_or_default();
    let mut files = Files { all: certificates(doc, &balancer, site)? };
    if let (Some(kubernetes), false) = (&spec.kubernetes, planes.is_empty()) {
        files.all.extend(kubeconfig::ca(&kubernetes.kubeconfig, site)?.map(|pem| (CA.to_owned(), pem)));
    }
    if let Some(pem) = vault_ca(doc, &balancer, site)? {
        files.all.insert(VAULT_CA.to_owned(), pem);
    }
    let path = |file: &str| files.all.contains_key(file).then(|| files.path(file));
    let own = listeners(doc, &balancer, &machines)?;
    let config = |machine: &Machine| Config {
        address: machine.address,
        stats_port: balancer.stats_port.get(),
        api: api(&vip, spec.kubernetes.as_ref(), path(CA), &planes),
        web: web(&vip, spec.ingress.as_ref(), &balancer, &workers),
        terminate: (balancer.mode == BalanceMode::Terminate)
            .then(|| Terminate { certificates: files.path(CERTIFICATES) + "/", hsts: balancer.hsts_seconds }),
        vault: vault(&balancer, path(VAULT_CA)),
        listeners: own.clone(),
    };
    let route = match spec.ssh() {
        Ok(ssh) => Ok(Route::new(balancers.iter().copied(), ssh, site)),
        Err(missing) => Err(Failure::from(doc.locate(missing))
            .hint("without spec.ssh only render and lint work: lb-render render --dir DIR")),
    };
    let balancers = balancers.into_iter().map(|machine| {
        let config = config(machine);
        let text = config.text()?;
        Ok(Balancer { name: machine.name.clone(), config, text })
    });
    Ok(Want {
        balancers: balancers.collect::<Result<_, Failure>>()?,
        vip,
        packages: spec.packages.clone().unwrap_or_default(),
        files,
        route,
    })
}

fn nothing(doc: &Document, spec: &Spec, why: &str) -> Failure {
    let key = if spec.pools.is_some() { "pools" } else { "machines" };
    let at = Pointer::root().key("spec").key(key);
    doc.locate(Refusals::one(at, why)).into()
}

fn api(vip: &Vip, kubernetes: Option<&Kubernetes>, ca: Option<String>, servers: &[Server]) -> Option<Api> {
    let port = kubernetes.map_or(6443, |k| k.api_port.get());
    (!servers.is_empty()).then(|| Api { listen: vip.ports.api.get(), port, ca, servers: servers.to_vec() })
}

fn web(vip: &Vip, ingress: Option<&Ingress>, balancer: &LoadBalancer, servers: &[Server]) -> Option<Web> {
    // The defaults of spec.ingress, for a document that has none.
    let (http, https, ping) = ingress.map_or((30080, 30443, 30082), |i| {
        (i.http_node_port.get(), i.https_node_port.get(), i.ping_node_port.get())
    });
    (!servers.is_empty()).then(|| Web {
        http: Pair { listen: vip.ports.http.get(), port: http },
        https: Pair { listen: vip.ports.https.get(), port: https },
        ping,
        proxy: if balancer.proxy_protocol { " send-proxy-v2" } else { "" },
        servers: servers.to_vec(),
    })
}

fn vault(balancer: &LoadBalancer, ca: Option<String>) -> Option<Vault> {
    let vault = balancer.vault.as_ref()?;
    let servers = vault.servers.iter().enumerate();
    let servers = servers.map(|(n, a)| Server { name: format!("vault-{}", n + 1), address: *a });
    Some(Vault {
        listen: vault.port.get(),
        port: vault.server_port.get(),
        ca,
        name: vault.server_name.as_ref().map(ToString::to_string),
        servers: servers.collect(),
    })
}

/// The authority of the Vault servers (PEM), where the document names one.
fn vault_ca(doc: &Document, balancer: &LoadBalancer, site: &Site) -> Result<Option<String>, Failure> {
    let Some(vault) = &balancer.vault else { return Ok(None) };
    let Some(path) = &vault.ca_file else {
        let at = Pointer::root().key("spec").key("loadBalancer").key("vault").key("serverName");
        let why = "needs caFile: without an authority no certificate is looked at";
        return match vault.server_name {
            Some(_) => Err(doc.locate(Refusals::one(at, why)).into()),
            None => Ok(None),
        };
    };
    let wrong = |why: String| {
        Failure::precondition(format!("cannot take Vault's CA from {path} (spec.loadBalancer.vault.caFile)"))
            .because(why)
    };
    let pem = std::fs::read_to_string(site.path(path)).map_err(|e| wrong(e.to_string()))?;
    if !pem.contains("-----BEGIN CERTIFICATE-----") || pem.contains("PRIVATE KEY") {
        return Err(wrong("it is not PEM with certificates, and nothing else".to_owned()));
    }
    Ok(Some(pem))
}

/// The operator's own listeners, each with the machines that its selector chooses.
fn listeners(
    doc: &Document,
    balancer: &LoadBalancer,
    machines: &[Machine],
) -> Result<Vec<Listener>, Failure> {
    let mut all: Vec<Listener> = Vec::new();
    let mut wrong = Refusals::default();
    let list = Pointer::root().key("spec").key("loadBalancer");
    for (n, listener) in balancer.listeners.iter().enumerate() {
        let here = list.key("listeners").index(n);
        // Named apart from our own proxies, whatever the operator's name is.
        let name = format!("listener-{}", listener.name);
        if all.iter().any(|other| other.name == name) {
            wrong.add(here.key("name"), format!("\"{}\" names two listeners", listener.name));
        }
        if listener.role.is_none() && listener.labels.is_empty() {
            let why = "chooses no machines; write role, labels, or both";
            wrong.add(here.clone(), why);
            continue;
        }
        let chosen = machines.iter().filter(|m| {
            listener.role.is_none_or(|role| m.role == role)
                && listener.labels.iter().all(|(key, value)| m.labels.get(key) == Some(value))
        });
        let servers: Vec<Server> =
            chosen.map(|m| Server { name: m.name.clone(), address: m.address }).collect();
        if servers.is_empty() {
            wrong.add(here.clone(), "chooses no machine of the document: no role and labels are such");
        }
        let check = listener.check_path.clone();
        if check.as_ref().is_some_and(|path| !is_path(path)) {
            let why = "is no path; write for example \"/healthz\", of letters, digits and /._~-?=&%";
            wrong.add(here.key("checkPath"), why);
        }
        let port = listener.port.get();
        all.push(Listener {
            name,
            http: listener.mode == ListenerMode::Http,
            pair: Pair { listen: port, port: listener.target_port.map_or(port, |p| p.get()) },
            check,
            servers,
        });
    }
    if balancer.vault.as_ref().is_some_and(|v| v.servers.is_empty()) {
        wrong.add(list.key("vault").key("servers"), "names no server");
    }
    if wrong.is_empty() { Ok(all) } else { Err(doc.locate(wrong).into()) }
}

/// What HAProxy takes as a word of its own, and a server as a path.
fn is_path(text: &str) -> bool {
    text.starts_with('/') && text.chars().all(|c| c.is_ascii_alphanumeric() || "/._~-?=&%".contains(c))
}

/// The certificates to serve, each with its key, by the paths that they have on a machine.
fn certificates(
    doc: &Document,
    balancer: &LoadBalancer,
    site: &Site,
) -> Result<BTreeMap<String, String>, Failure> {
    let mut all = BTreeMap::new();
    if balancer.mode != BalanceMode::Terminate {
        return Ok(all);
    }
    let at = Pointer::root().key("spec").key("loadBalancer").key("certificates");
    if balancer.certificates.is_empty() {
        let why = "names no certificate; the mode \"terminate\" needs one (PEM, key and chain in one file)";
        return Err(doc.locate(Refusals::one(at, why)).into());
    }
    for (n, path) in balancer.certificates.iter().enumerate() {
        for file in files(path, site)? {
            let pem = site.secret("a certificate (spec.loadBalancer.certificates)", &file)?;
            if !pem.contains("-----BEGIN CERTIFICATE-----") || !pem.contains("PRIVATE KEY-----") {
                return Err(Failure::precondition(format!("cannot serve the certificate {file}"))
                    .because("it is not PEM with certificate and private key in one file")
                    .hint(format!("cat fullchain.pem privkey.pem > {file}; chmod 600 {file}")));
            }
            let name = site.path(&file).file_name().map(|n| n.to_string_lossy().into_owned());
            let name = name.unwrap_or_default();
            if all.insert(format!("{CERTIFICATES}/{name}"), pem + "\n").is_some() {
                let why = format!("brings a second file called {name:?}; file names must differ");
                return Err(doc.locate(Refusals::one(at.index(n), why)).into());
            }
        }
    }
    Ok(all)
}

/// A file, or the `*.pem` files of a folder in the order of their names.
fn files(path: &FilePath, site: &Site) -> Result<Vec<FilePath>, Failure> {
    let full = site.path(path);
    if !full.is_dir() {
        return Ok(vec![path.clone()]);
    }
    let wrong =
        |why: String| Failure::new(Exit::Precondition, format!("cannot read the folder {path}")).because(why);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&full).map_err(|e| wrong(e.to_string()))? {
        let file = entry.map_err(|e| wrong(e.to_string()))?.path();
        if file.extension().is_some_and(|e| e == "pem") {
            found.push(file.to_string_lossy().parse::<FilePath>().map_err(wrong)?);
        }
    }
    found.sort_by_key(ToString::to_string);
    if found.is_empty() { Err(wrong("it holds no *.pem file".to_owned())) } else { Ok(found) }
}
