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
pub mod want;

use cluster_doc::{Document, Section};
use fleet::Fleet;
use serde_json::{Value, json};
use stage::{Ctx, Failure, Finding, Guard, Own, Plan, Rendered, Site, Tool};

pub use plan::Step;
pub use seen::Seen;
pub use want::Want;

/// The tool.
pub struct VipKeepalive;

impl Tool for VipKeepalive {
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

    type Flags = args::Flags;
    type Verb = args::Verb;
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
        let monitor = want.balancers.first().map(|b| b.instance.monitor.as_str()).unwrap_or_default();
        seen::observe(fleet, monitor, ctx).await
    }

    fn plan(want: &Want, seen: &Seen) -> Plan<Step> {
        plan::plan(want, seen)
    }

    async fn guard(plan: &Plan<Step>, fleet: &Fleet, _: &Want, ctx: &Ctx) -> Result<Option<Guard>, Failure> {
        fleet.lock(plan.steps().filter_map(Step::machine), ctx).await.map(Some)
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
        let holders = seen.holders(want.vip.address);
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

    fn render(want: &Want) -> Result<Option<Vec<Rendered>>, Failure> {
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
        Ok(Some(files))
    }

    fn own(verb: &args::Verb, _: &Want, _: &Site) -> Result<Own<Self>, Failure> {
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
