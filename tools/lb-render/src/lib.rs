//! HAProxy from one JSON document: rendered, tested, swapped, reloaded.
//!
//! **Reads** `spec.vip`, `spec.pools`, `spec.machines`, `spec.loadBalancer`, `spec.kubernetes` (API port,
//! kubeconfig), `spec.ingress` (NodePorts), `spec.ssh`, `spec.packages`, and `status["pve-vm"]`; the kubeconfig
//! once it exists, for the CA in it. **Writes** `status["lb-render"]`. **Changes** on each load balancer: the
//! package haproxy, /etc/haproxy/haproxy.cfg, /etc/haproxy/kubeline-ca.pem, /etc/haproxy/kubeline-certs/ and the
//! unit haproxy.service. **Needs** SSH to the load balancers with sudo; `render` needs nothing.
//!
//! Listeners bind every address (`*:PORT`): they serve whether the machine holds the shared address or not, and
//! nothing is to be reloaded when it moves.

pub mod apply;
pub mod args;
pub mod check;
pub mod config;
pub mod kubeconfig;
pub mod plan;
pub mod runtime;
pub mod seen;
pub mod want;

use cluster_doc::{Document, Section};
use fleet::Fleet;
use serde_json::{Value, json};
use stage::{Ctx, Failure, Finding, Guard, NoVerb, Own, Plan, Rendered, Site, Tool};

pub use plan::Step;
pub use seen::Seen;
pub use want::Want;

use config::{CA, digest};
use seen::FileSeen;

/// The tool.
pub struct LbRender;

impl Tool for LbRender {
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

    type Flags = args::Flags;
    type Verb = NoVerb;
    type Want = Want;
    type World = Fleet;
    type Seen = Seen;
    type Step = Step;

    fn want(_: &args::Flags, doc: &Document, site: &Site) -> Result<Want, Failure> {
        want::want(doc, site)
    }

    async fn connect(want: &Want, ctx: &Ctx) -> Result<Fleet, Failure> {
        let route = want.route.as_ref().map_err(Clone::clone)?;
        Fleet::connect(route, ctx).await
    }

    async fn observe(fleet: &Fleet, want: &Want, ctx: &Ctx) -> Result<Seen, Failure> {
        seen::observe(fleet, !want.certificates.is_empty(), ctx).await
    }

    fn plan(want: &Want, seen: &Seen) -> Plan<Step> {
        plan::plan(want, seen)
    }

    async fn guard(plan: &Plan<Step>, fleet: &Fleet, _: &Want, ctx: &Ctx) -> Result<Option<Guard>, Failure> {
        fleet.lock(plan.steps().map(Step::machine), ctx).await.map(Some)
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
            "apiVerified": want.ca.is_some(),
        })
    }

    fn check(_: &Want, seen: &Seen) -> Vec<Finding> {
        check::check(seen)
    }

    fn render(want: &Want) -> Result<Option<Vec<Rendered>>, Failure> {
        // Certificates are left out: they come with their private keys.
        let mut files = Vec::new();
        for balancer in &want.balancers {
            let path = |file: &str| format!("{}/{file}", balancer.name);
            let content = balancer.text.text.clone().into_bytes();
            files.push(Rendered { path: path("haproxy.cfg"), content });
            if let Some(pem) = &want.ca {
                let file = CA.rsplit('/').next().unwrap_or(CA);
                files.push(Rendered { path: path(file), content: pem.clone().into_bytes() });
            }
        }
        Ok(Some(files))
    }

    fn own(verb: &Self::Verb, _: &Self::Want, _: &Site) -> Result<Own<Self>, Failure> {
        match *verb {}
    }

    fn teardown(want: &Want, seen: &Seen) -> Plan<Step> {
        plan::teardown(want, seen)
    }
}

fn listeners(balancer: &want::Balancer) -> Value {
    balancer.config.ports().into_iter().map(|(name, port)| (name.to_owned(), json!(port))).collect()
}
