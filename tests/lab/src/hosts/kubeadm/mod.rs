//! kubeadm, the kubelet and the container runtime.
//!
//! kubeadm's words are those of a recorded v1.36.2; what it does to files is done for real (certificates,
//! kubeconfigs, manifests), and what it does to the cluster goes through the [`Kubernetes`](crate::world::Kubernetes)
//! door. Whether an API server runs follows from the machine alone: see [`cluster::settle`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::programs::{Ctx, Output};
use super::{Host, Machine, etcd};

pub mod certs;
pub mod cluster;
pub mod config;
pub mod credentials;
pub mod discovery;
pub mod images;
pub mod init;
pub mod join;
pub mod kubelet;
pub mod manifests;
pub mod objects;
pub mod phase;
pub mod pki;
pub mod preflight;
pub mod reset;
pub mod runtime;
pub mod tokens;
pub mod upgrade;

pub use cluster::{Looked, Shown, settle};

/// What kubeadm and the runtime keep on a machine outside files.
#[derive(Clone, Debug, Default)]
pub struct NodeState {
    /// The installed kubeadm's version, such as `1.36.2`.
    pub kubeadm_version: Option<String>,
    /// How many kubeadm run.
    pub runs: usize,
    /// How often the container of a static pod was stopped, by its name.
    pub stops: BTreeMap<String, u64>,
    /// Why etcd ends each time that it is started, while it does.
    pub etcd_ends: Option<String>,
    /// Images in the runtime's store.
    pub images: BTreeSet<String>,
    /// The version of the kubelet that was started last, which an upgrade of its package does not change.
    pub kubelet_runs: Option<String>,
    /// True when containerd was started with its CRI plugin off.
    pub cri_off: bool,
}

/// What a run of kubeadm says while it goes on.
#[derive(Default)]
pub struct Words {
    out: String,
    err: String,
}

impl Words {
    /// A line on standard output.
    pub fn out(&mut self, line: impl AsRef<str>) {
        self.out.push_str(line.as_ref());
        self.out.push('\n');
    }

    /// A line on standard error.
    pub fn err(&mut self, line: impl AsRef<str>) {
        self.err.push_str(line.as_ref());
        self.err.push('\n');
    }

    /// The end: exit 0, or the error in kubeadm's form and exit 1.
    pub fn end(mut self, result: Result<(), String>) -> Output {
        let exit = match result {
            Ok(()) => 0,
            Err(text) => {
                self.err(format!(
                    "error: {text}\nTo see the stack trace of this error execute with --v=5 or higher"
                ));
                1
            }
        };
        Output { exit, stdout: self.out.into(), stderr: self.err.into() }
    }
}

/// The flags of a call: names without dashes, and what is left.
pub struct Flags {
    given: Vec<(String, String)>,
    /// Words that are no flags.
    pub words: Vec<String>,
}

const SWITCHES: [&str; 8] = [
    "upload-certs",
    "control-plane",
    "force",
    "print-join-command",
    "dry-run",
    "discovery-token-unsafe-skip-ca-verification",
    "yes",
    "cleanup-tmp-dir",
];

impl Flags {
    /// Parses flags of which only `known` may be given.
    ///
    /// # Errors
    /// kubeadm's text for an unknown flag.
    pub fn parse(args: &[String], known: &[&str]) -> Result<Flags, String> {
        let mut flags = Flags { given: Vec::new(), words: Vec::new() };
        let mut rest = args.iter();
        while let Some(arg) = rest.next() {
            let Some(name) =
                arg.strip_prefix('-').map(|a| a.trim_start_matches('-')).filter(|a| !a.is_empty())
            else {
                flags.words.push(arg.clone());
                continue;
            };
            let (name, value) = name.split_once('=').map_or((name, None), |(n, v)| (n, Some(v.to_string())));
            let name = match name {
                "f" => "force",
                "o" => "output",
                name => name,
            };
            if !known.contains(&name) {
                return Err(format!("unknown flag: --{name}"));
            }
            let value = match value {
                Some(value) => value,
                None if SWITCHES.contains(&name) => "true".into(),
                None => rest.next().cloned().ok_or_else(|| format!("flag needs an argument: --{name}"))?,
            };
            flags.given.push((name.into(), value));
        }
        Ok(flags)
    }

    /// A flag's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.given.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// A switch.
    pub fn on(&self, name: &str) -> bool {
        self.get(name) == Some("true")
    }

    /// The values of a list flag, separated by commas or given again.
    pub fn list(&self, name: &str) -> Vec<String> {
        let all = self.given.iter().filter(|(n, _)| n == name);
        all.flat_map(|(_, v)| v.split(',').map(String::from)).collect()
    }
}

/// A process of kubeadm, however it ends.
struct Runs(Arc<Host>);

impl Runs {
    fn new(host: &Arc<Host>) -> Runs {
        host.machine().kube.runs += 1;
        Runs(host.clone())
    }
}

impl Drop for Runs {
    fn drop(&mut self) {
        let mut machine = self.0.machine();
        machine.kube.runs = machine.kube.runs.saturating_sub(1);
    }
}

/// The program.
pub fn kubeadm<'a>(ctx: &'a mut Ctx, args: &'a [String]) -> BoxFuture<'a, Output> {
    async move {
        let _runs = Runs::new(&ctx.host);
        let words: Vec<&str> = args.iter().map(String::as_str).collect();
        let tail = |n: usize| &args[n.min(args.len())..];
        match words.as_slice() {
            ["version", ..] => images::version(ctx, tail(1)),
            ["config", "images", "list", ..] => images::list(ctx, tail(3)),
            ["config", "images", "pull", ..] => images::pull(ctx, tail(3)).await,
            ["config", "validate", ..] => init::validate(ctx, tail(2)),
            ["init", "phase", "upload-certs", ..] => tokens::upload_certs(ctx, tail(3)).await,
            ["init", "phase", "preflight", ..] => init::preflight_only(ctx, tail(3)),
            ["init", "phase", "etcd", "local", ..] => phase::etcd_local(ctx, tail(4)),
            ["init", "phase", ..] => ctx.unknown("kubeadm", args),
            ["init", ..] => init::run(ctx, tail(1)).await,
            ["join", "phase", ..] => ctx.unknown("kubeadm", args),
            ["join", ..] => join::run(ctx, tail(1)).await,
            ["reset", "phase", ..] => ctx.unknown("kubeadm", args),
            ["reset", ..] => reset::run(ctx, tail(1)).await,
            ["token", "create", ..] => tokens::create(ctx, tail(2)).await,
            ["token", "list", ..] => tokens::list(ctx, tail(2)).await,
            ["token", "delete", ..] => tokens::delete(ctx, tail(2)).await,
            ["token", "generate"] => Output::ok(format!("{}\n", tokens::random())),
            ["upgrade", "apply", ..] => upgrade::apply(ctx, tail(2)).await,
            ["upgrade", "node", "phase", "kubelet-config", ..] => upgrade::kubelet_config(ctx, tail(4)).await,
            ["upgrade", "node", "phase", ..] => ctx.unknown("kubeadm", args),
            ["upgrade", "node", ..] => upgrade::node(ctx, tail(2)).await,
            ["certs", "certificate-key"] => Output::ok(format!("{}\n", tokens::random_key())),
            ["certs", "check-expiration", ..] => certs::check(ctx, tail(2)),
            ["certs", "renew", ..] => certs::renew(ctx, tail(2)).await,
            _ => ctx.unknown("kubeadm", args),
        }
    }
    .boxed()
}

/// The node name that kubeadm takes by default.
pub fn host_name(machine: &Machine) -> String {
    machine.fs.text("/etc/hostname").trim().to_lowercase()
}

/// The ports that Kubernetes has open on a machine.
pub fn ports(machine: &Machine) -> Vec<u16> {
    let mut open = Vec::new();
    if !machine.services.active("kubelet") {
        return open;
    }
    open.push(10250);
    let runs = machine.services.active("containerd");
    if runs && machine.fs.exists("/etc/kubernetes/manifests/kube-apiserver.yaml") {
        open.extend([manifests::api_port(machine), 10259, 10257]);
    }
    if etcd::runs(machine).is_some() {
        open.extend([2379, 2380]);
    }
    open
}
