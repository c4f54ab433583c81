//! NFS exports on one machine, and in the cluster a provisioner and a storage class for each.
//!
//! * **Reads** `spec.storage.exports`, `spec.backup.etcd.export`, the machines of the roles nfs, worker and
//!   control-plane with the data disks of their pools, `spec.packages`, `spec.kubernetes.kubeconfig`, `spec.registry`.
//! * **Writes** `status["nfs-provision"]`: the server, the exports with their classes, a digest of the objects.
//! * **Changes** on the NFS machine the packages, the file system of a blank data disk, two lines of /etc/fstab, the folders and
//!   /etc/exports.d/kubeline.exports; on nodes the package nfs-common; in the cluster the namespace `nfs-provisioner`
//!   and the classes, as the field manager `kubeline-nfs-provision`.
//! * **Needs** SSH with sudo to these machines, and the kubeconfig. A disk that holds anything is never formatted.

mod apply;
mod exports;
mod fstab;
mod objects;
mod plan;
mod seen;
mod want;

pub use plan::Step;
pub use seen::{Seen, World};
pub use want::Want;

use cluster_doc::{Document, Section};
use serde_json::{Value, json};
use stage::{Ctx, Failure, Finding, Guard, NoVerb, Own, Plan, Rendered, Site, Tool};

/// The tool.
#[derive(Debug)]
pub struct NfsProvision;

impl Tool for NfsProvision {
    const NAME: &'static str = "nfs-provision";
    const ABOUT: &'static str = "Export folders over NFS, with a storage class each";
    const TEACH: &'static str = "\
Examples:
  nfs-provision plan -f cluster.json           what would change on the machines and in the cluster
  nfs-provision < cluster.json > next.json     export, install the provisioners, wait for them
  nfs-provision render --dir nfs               the exports file and the manifests

Files (on the NFS machine):
  /etc/exports.d/kubeline.exports    ours; other files there and /etc/exports are left alone";
    const READS: &'static [Section] = &[
        Section::Network,
        Section::Vip,
        Section::Ssh,
        Section::Pools,
        Section::Machines,
        Section::Kubernetes,
        Section::Storage,
        Section::Backup,
        Section::Packages,
        Section::Registry,
    ];

    type Flags = addon::Flags;
    type Verb = NoVerb;
    type Want = Want;
    type World = World;
    type Seen = Seen;
    type Step = Step;

    fn want(flags: &addon::Flags, doc: &Document, site: &Site) -> Result<Want, Failure> {
        want::want(flags, doc, site)
    }

    async fn connect(want: &Want, ctx: &Ctx) -> Result<World, Failure> {
        seen::connect(want, ctx).await
    }

    async fn observe(world: &World, want: &Want, ctx: &Ctx) -> Result<Seen, Failure> {
        seen::observe(world, want, ctx).await
    }

    fn plan(want: &Want, seen: &Seen) -> Plan<Step> {
        plan::plan(want, seen)
    }

    async fn guard(
        plan: &Plan<Step>,
        world: &World,
        _want: &Want,
        ctx: &Ctx,
    ) -> Result<Option<Guard>, Failure> {
        let hosts = world.fleet.lock(plan.steps().filter_map(Step::machine), ctx).await?;
        let cluster = match plan.steps().any(|step| step.machine().is_none()) {
            true => Some(addon::guard(&world.cluster, ctx).await?),
            false => None,
        };
        Ok(Some(Box::new((hosts, cluster))))
    }

    async fn apply(step: &Step, world: &World, want: &Want, ctx: &Ctx) -> Result<(), Failure> {
        Box::pin(apply::apply(step, world, want, ctx)).await
    }

    fn status(want: &Want, _seen: &Seen) -> Value {
        let exports: Vec<Value> = want
            .classes
            .iter()
            .map(|class| json!({"path": class.path, "storageClass": class.name, "provisioner": class.provisioner}))
            .collect();
        json!({
            "server": want.server.as_ref().map(|server| json!({"name": server.name, "address": server.address})),
            "exports": exports,
            "objects": want.addon.len(),
            "digest": want.addon.digest(),
        })
    }

    fn check(_want: &Want, seen: &Seen) -> Vec<Finding> {
        addon::findings(&seen.cluster)
    }

    fn render(want: &Want) -> Result<Option<Vec<Rendered>>, Failure> {
        let mut files = Vec::new();
        if let Some(server) = &want.server {
            let path = format!("{}{}", server.name, exports::PATH);
            files.push(Rendered { path, content: server.exports_file.clone().into_bytes() });
        }
        files.extend(addon::rendered(&want.addon)?);
        Ok(Some(files))
    }

    fn own(verb: &Self::Verb, _: &Self::Want, _: &Site) -> Result<Own<Self>, Failure> {
        match *verb {}
    }

    fn teardown(want: &Want, seen: &Seen) -> Plan<Step> {
        plan::teardown(want, seen)
    }
}
