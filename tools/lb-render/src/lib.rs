//! HAProxy from one JSON document: rendered, tested, swapped, reloaded.
//!
//! **Reads** `spec.vip`, `spec.pools`, `spec.machines`, `spec.loadBalancer`, `spec.kubernetes` (API port,
//! kubeconfig), `spec.ingress` (NodePorts), `spec.ssh`, `spec.packages`, and `status["pve-vm"]`; the kubeconfig
//! once it exists, for the CA in it. **Writes** `status["lb-render"]`. **Changes** on each load balancer: the
//! package haproxy, /etc/haproxy/haproxy.cfg, /etc/haproxy/kubeline/ and the unit haproxy.service. **Needs** SSH to the load balancers with sudo; `render` needs nothing.
//!
//! Listeners bind every address (`*:PORT`): they serve whether the machine holds the shared address or not, and
//! nothing is to be reloaded when it moves.

pub mod apply;
pub mod args;
pub mod check;
pub mod config;
pub mod files;
pub mod kubeconfig;
pub mod plan;
pub mod runtime;
pub mod seen;
pub mod want;

use cluster_doc::{Document, Section};
use fleet::{Daemon, Fleet, Service};
use remote::{Error, Host};
use serde_json::{Value, json};
use stage::{Ctx, Failure, Finding, NoVerb, Own, Plan, Rendered, Site};

pub use plan::Step;
pub use seen::Seen;
pub use want::Want;

use config::digest;
use files::CERTIFICATES;
use seen::FileSeen;

/// HAProxy as systemd knows it.
pub const SERVICE: Service = Service { unit: "haproxy", called: "HAProxy" };

/// The daemon.
pub struct Haproxy;

/// The tool.
pub type LbRender = fleet::Tool<Haproxy>;

impl Daemon for Haproxy {
    const NAME: &'static str = "lb-render";
    const ABOUT: &'static str = "HAProxy on the load balancers: rendered, tested, swapped in, reloaded";
    const TEACH: &'static str = "\
Examples:
  lb-render plan < cluster.json            what would change, and why
  lb-render < cluster.json > next.json     make it so
  lb-render render prod-lb-1 -f cluster.json
                                           one machine's haproxy.cfg; needs no SSH
  lb-render check -f cluster.json          drift, and servers that are down

Files: man 1 lb-render, man 5 cluster-doc";
    const READS: &'static [Section] = want::READS;
    const LOOKING: &'static str = "look at HAProxy on";

    type Flags = args::Flags;
    type Verb = NoVerb;
    type Want = Want;
    type Machine = seen::MachineSeen;
    type Step = Step;

    fn want(_: &args::Flags, doc: &Document, site: &Site) -> Result<Want, Failure> {
        want::want(doc, site)
    }

    async fn look(host: Host, _: &Want, _: &Ctx) -> Result<seen::MachineSeen, Error> {
        seen::machine(host).await
    }

    fn plan(want: &Want, seen: &Seen) -> Plan<Step> {
        plan::plan(want, seen)
    }

    async fn apply(step: &Step, fleet: &Fleet, want: &Want, ctx: &Ctx) -> Result<(), Failure> {
        apply::apply(step, fleet, want, ctx).await
    }

    fn status(want: &Want, seen: &Seen) -> Value {
        let machines = want.balancers.iter().filter_map(|balancer| {
            let machine = seen.machines.get(&balancer.name)?;
            let wanted = digest(balancer.text.text.as_bytes());
            (machine.config == FileSeen::Ours(wanted)).then(|| {
                json!({
                    "name": balancer.name,
                    "address": balancer.config.address,
                    "digest": balancer.text.digest,
                    "version": machine.version,
                    "monitor": format!("http://127.0.0.1:{}{}", balancer.config.stats_port, config::MONITOR),
                    "listeners": listeners(balancer),
                })
            })
        });
        let ports = want.balancers.first().map(listeners).unwrap_or_default();
        json!({
            "machines": machines.collect::<Vec<_>>(),
            "vip": want.vip.address,
            "ports": ports,
            "apiVerified": want.files.all.contains_key(files::CA),
        })
    }

    fn check(_: &Want, seen: &Seen) -> Vec<Finding> {
        check::check(seen)
    }

    fn render(want: &Want) -> Result<Vec<Rendered>, Failure> {
        // Certificates are left out: they come with their private keys.
        let mut files = Vec::new();
        for balancer in &want.balancers {
            let path = |file: &str| format!("{}/{file}", balancer.name);
            let content = balancer.text.text.clone().into_bytes();
            files.push(Rendered { path: path("haproxy.cfg"), content });
            let folder = want.files.name().unwrap_or_default();
            for (file, pem) in want.files.all.iter().filter(|(file, _)| !file.starts_with(CERTIFICATES)) {
                let path = path(&format!("kubeline/{folder}/{file}"));
                files.push(Rendered { path, content: pem.clone().into_bytes() });
            }
        }
        Ok(files)
    }

    fn own(verb: &NoVerb, _: &Want, _: &Site) -> Result<Own<LbRender>, Failure> {
        match *verb {}
    }

    fn teardown(want: &Want, seen: &Seen) -> Plan<Step> {
        plan::teardown(want, seen)
    }
}

fn listeners(balancer: &want::Balancer) -> Value {
    balancer.config.ports().into_iter().map(|(name, port)| (name.to_owned(), json!(port))).collect()
}
