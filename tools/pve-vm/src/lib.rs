//! Machines on Proxmox VE from one JSON document.
//!
//! Reads `proxmox`, `network`, `ssh` and `pools` of `spec` · writes `status["pve-vm"]` · changes guests with its mark
//! in the document's range of ids, their seeds, and the resource pool · needs an API token, a template whose image
//! has cloud-init, and the private key to one of the keys that the machines let in.
//!
//! ```text
//! args ─ want ─┐
//!              ├─ plan (roster: who is who · place · change: what differs · privileges) ─ apply ─ observe
//! observe ─────┘
//! ```

mod apply;
pub mod args;
pub mod change;
pub mod container;
pub mod ha;
mod homes;
pub mod image;
pub mod job;
pub mod mark;
mod observe;
pub mod options;
pub mod place;
mod plan;
pub mod power;
mod preflight;
pub mod privileges;
pub mod pve;
mod renew;
pub mod roster;
pub mod seed;
pub mod seen;
mod ssh;
mod status;
pub mod step;
mod teardown;
pub mod template;
mod verbs;
pub mod want;
pub mod world;

use cluster_doc::{Document, Section};
use serde_json::Value;
use stage::{Ctx, Failure, Finding, Own, Plan, Site, Slot, Tool};

pub use plan::plan;
pub use status::status;
pub use teardown::teardown;
pub use verbs::rebalance;

/// Machines on Proxmox VE.
pub struct PveVmTool;

impl Tool for PveVmTool {
    const NAME: &'static str = "pve-vm";
    const ABOUT: &'static str = "Machines on Proxmox VE from one JSON document";
    const TEACH: &'static str = "Examples:\n  pve-vm plan < cluster.json             what would be done, and why\n  \
        pve-vm < cluster.json > with-vms.json  make the machines; the document gains status[\"pve-vm\"]\n  \
        pve-vm check -f cluster.json           exit 6 when something is off\n  \
        pve-vm destroy --delete-data prod-nfs-1 -f cluster.json\n  \
        pve-vm role --release 9 < cluster.json  the privileges that it needs, as pveum lines\n  \
        pve-vm replace prod-w-2 -f cluster.json make a lost machine anew\n\n\
        Only guests that bear the mark of this cluster in their notes are ever changed or deleted.";
    const READS: &'static [Section] = want::READS;

    type Flags = args::Flags;
    type Verb = args::Verb;
    type Want = want::Want;
    type World = world::World;
    type Seen = seen::Seen;
    type Step = step::Step;

    fn want(flags: &Self::Flags, doc: &Document, site: &Site) -> Result<Self::Want, Failure> {
        want::want(flags, doc, site)
    }

    async fn connect(want: &Self::Want, _: &Ctx) -> Result<Self::World, Failure> {
        let client = pve::Client::new(want.endpoints.clone(), want.login.clone(), &want.trust);
        let client =
            client.map_err(|why| Failure::precondition("cannot use the CA of Proxmox").caused_by(&why))?;
        Ok(world::World::new(client, want.endpoints.clone()))
    }

    async fn observe(world: &Self::World, want: &Self::Want, ctx: &Ctx) -> Result<Self::Seen, Failure> {
        // On the heap: it holds the futures of many requests.
        Box::pin(observe::observe(world, want, ctx)).await
    }

    fn plan(want: &Self::Want, seen: &Self::Seen) -> Plan<Self::Step> {
        plan::plan(&want.design, seen)
    }

    fn slot(step: &Self::Step) -> Slot {
        match step {
            step::Step::Ready { .. } | step::Step::Pin { .. } => Slot::Wait,
            // Proxmox does the work; its own bounds are in the plan's lanes and in `World::room`.
            _ => Slot::Elsewhere,
        }
    }

    async fn apply(
        step: &Self::Step,
        world: &Self::World,
        want: &Self::Want,
        ctx: &Ctx,
    ) -> Result<(), Failure> {
        Box::pin(apply::apply(step, world, want, ctx)).await
    }

    fn status(want: &Self::Want, seen: &Self::Seen) -> Value {
        serde_json::to_value(status::status(&want.design, seen)).unwrap_or_default()
    }

    fn check(want: &Self::Want, seen: &Self::Seen) -> Vec<Finding> {
        status::check(&want.design, seen)
    }

    fn own(verb: &Self::Verb, want: &Self::Want, _: &Site) -> Result<Own<Self>, Failure> {
        verbs::own(verb, want)
    }

    fn teardown(want: &Self::Want, seen: &Self::Seen) -> Plan<Self::Step> {
        teardown::teardown(&want.design, seen)
    }
}
