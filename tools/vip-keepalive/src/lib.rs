//! One VRRP address on two to five keepalived machines, proven.
//!
//! **Reads** `spec.vip`, `spec.pools`, `spec.machines`, `spec.loadBalancer` (the port of HAProxy's monitor),
//! `spec.ssh`, `spec.packages`, and `status["pve-vm"]`. **Writes** `status["vip-keepalive"]`. **Changes** on each
//! load balancer: the packages keepalived and iputils-arping, /etc/keepalived/keepalived.conf,
//! /usr/libexec/kubeline/check-haproxy, the unit keepalived.service, and drop-ins of it and of haproxy.service.
//! **Needs** SSH to the load balancers with
//! sudo, and HAProxy on them (lb-render): a machine whose HAProxy does not answer never holds the address.
//!
//! All machines are BACKUP with `nopreempt`: whoever holds the address keeps it until it fails. A failing check is
//! a fault (weight 0); under `nopreempt` a mere weight would leave the address on the failed machine.

pub mod apply;
pub mod args;
pub mod check;
pub mod config;
pub mod drill;
pub mod plan;
pub mod seen;
pub mod state;
pub mod table;
pub mod want;

use cluster_doc::{Document, Section};
use fleet::{Daemon, Fleet, Service};
use remote::{Error, Host};
use serde_json::{Value, json};
use stage::{Ctx, Failure, Finding, Own, Plan, Rendered, Site};

pub use plan::Step;
pub use seen::Seen;
pub use want::Want;

/// keepalived as systemd knows it.
pub const SERVICE: Service = Service { unit: "keepalived", called: "keepalived" };

/// The daemon.
pub struct Keepalived;

/// The tool.
pub type VipKeepalive = fleet::Tool<Keepalived>;

impl Daemon for Keepalived {
    const NAME: &'static str = "vip-keepalive";
    const ABOUT: &'static str = "The load balancers' shared address: keepalived, one holder proven";
    const TEACH: &'static str = "\
Examples:
  vip-keepalive plan < cluster.json        what would change, and why
  vip-keepalive < cluster.json > next.json make it so
  vip-keepalive render prod-lb-1 -f cluster.json
                                           one machine's files; needs no SSH
  vip-keepalive check -f cluster.json      who holds the address, drift, failing checks
  vip-keepalive drill -f cluster.json      kill the holder's HAProxy, and measure the gap

Files: man 1 vip-keepalive, man 5 cluster-doc";
    const READS: &'static [Section] = want::READS;
    const LOOKING: &'static str = "look at keepalived on";

    type Flags = args::Flags;
    type Verb = args::Verb;
    type Want = Want;
    type Machine = seen::MachineSeen;
    type Step = Step;

    fn want(_: &args::Flags, doc: &Document, site: &Site) -> Result<Want, Failure> {
        want::want(doc, site)
    }

    async fn look(host: Host, want: &Want, ctx: &Ctx) -> Result<seen::MachineSeen, Error> {
        // keepalived writes a file when it is asked for its state: only who wants to know causes that.
        // Boxed: so much side by side is larger than a thread's stack should hold.
        let machine = Box::pin(seen::machine(&host, want.monitor()));
        let (seen, vrrp) = match ctx.verb() {
            "check" => futures::try_join!(machine, state::ask(&host))?,
            _ => (machine.await?, None),
        };
        Ok(seen::MachineSeen { vrrp, ..seen })
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
            let installed = config::Config::read(machine.config.as_deref()?);
            (installed.priority == balancer.instance.priority.to_string()).then(|| {
                json!({
                    "name": balancer.name,
                    "priority": balancer.instance.priority,
                    "interface": installed.interface,
                })
            })
        });
        let holders = seen::holders(seen, want.vip.address);
        let mut section = json!({
            "address": want.vip.address,
            "routerId": want.vip.router_id.get(),
            "machines": machines.collect::<Vec<_>>(),
        });
        if let [holder] = holders.as_slice() {
            section["holder"] = (*holder).into();
        }
        section
    }

    fn check(want: &Want, seen: &Seen) -> Vec<Finding> {
        check::check(want, seen)
    }

    fn overview(want: &Want, seen: &Seen) -> Option<String> {
        Some(table::table(want, seen))
    }

    fn render(want: &Want) -> Result<Vec<Rendered>, Failure> {
        let mut files = Vec::new();
        for balancer in &want.balancers {
            let path = |file: &str| format!("{}/{file}", balancer.name);
            let content = balancer.instance.text(&balancer.likely)?.into_bytes();
            files.push(Rendered { path: path("keepalived.conf"), content });
            let content = config::SCRIPT_TEXT.as_bytes().to_vec();
            files.push(Rendered { path: path("check-haproxy"), content });
            let content = config::HAPROXY_UNIT_TEXT.as_bytes().to_vec();
            files.push(Rendered { path: path("haproxy.service.d/kubeline-vip.conf"), content });
            let content = balancer.instance.unit(&balancer.likely)?.into_bytes();
            files.push(Rendered { path: path("keepalived.service.d/kubeline.conf"), content });
        }
        Ok(files)
    }

    fn own(verb: &args::Verb, _: &Want, _: &Site) -> Result<Own<VipKeepalive>, Failure> {
        let args::Verb::Drill { how, consent } = *verb;
        Ok(Own::Once {
            consent: Some(consent),
            intent: Box::new(move |want, seen| drill::intent(how, want, seen)),
            run: Box::new(move |fleet, want, seen, ctx| Box::pin(drill::run(how, fleet, want, seen, ctx))),
        })
    }

    fn teardown(want: &Want, seen: &Seen) -> Plan<Step> {
        plan::teardown(want, seen)
    }
}
