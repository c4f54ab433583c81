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
pub use seen::Found;
pub use want::Want;

use addon::{Flags, Installer, View, World};
use cluster_doc::{Document, Section};
use fleet::Fleet;
use serde_json::{Value, json};
use stage::{Ctx, Failure, Guard, Plan, Rendered, Site};

use crate::want::Server;

/// The tool.
pub type NfsProvision = addon::Tool<Nfs>;

/// What is this tool's own.
#[derive(Debug)]
pub struct Nfs;

impl Installer for Nfs {
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

    type Flags = Flags;
    type Want = Want;
    type Beside = Fleet;
    type Found = Found;
    type Step = Step;

    fn want(flags: &Flags, doc: &Document, site: &Site) -> Result<Want, Failure> {
        want::want(flags, doc, site)
    }

    async fn connect(want: &Want, ctx: &Ctx) -> Result<Fleet, Failure> {
        Fleet::connect(&want.route, ctx).await
    }

    async fn look(world: &World<Fleet>, want: &Want, _ctx: &Ctx) -> Result<Found, Failure> {
        seen::look(&world.beside, want).await
    }

    fn plan(want: &Want, seen: &View<Found>) -> Plan<Step> {
        plan::plan(want, seen)
    }

    async fn lock(world: &World<Fleet>, machines: Vec<&str>, ctx: &Ctx) -> Result<Option<Guard>, Failure> {
        world.beside.lock(machines, ctx).await.map(Some)
    }

    async fn change(step: &Step, world: &World<Fleet>, want: &Want, ctx: &Ctx) -> Result<(), Failure> {
        apply::apply(step, &world.beside, want, ctx).await
    }

    fn status(want: &Want) -> Value {
        let exports: Vec<Value> = want
            .classes
            .iter()
            .map(|class| json!({"path": class.path, "storageClass": class.name, "provisioner": class.provisioner}))
            .collect();
        json!({
            "server": want.server.as_ref().map(|server| json!({"name": server.name, "address": server.address})),
            "exports": exports,
        })
    }

    fn files(want: &Want) -> Vec<Rendered> {
        let file = |server: &Server| Rendered {
            path: format!("{}{}", server.name, exports::PATH),
            content: server.exports_file.clone().into_bytes(),
        };
        want.server.iter().map(file).collect()
    }

    fn teardown(want: &Want, seen: &View<Found>) -> Plan<Step> {
        plan::teardown(want, seen)
    }
}
