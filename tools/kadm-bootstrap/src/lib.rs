//! A highly available Kubernetes by kubeadm: prepared, initialised, joined.
//!
//! * Reads: `spec.kubernetes`, `cni`, `vip`, `ssh`, `pools`, `machines`, `network`, `packages`, `registry`, `artifacts`,
//!   `backup`; `status["pve-vm"]`.
//! * Writes: `status["kadm-bootstrap"]`, and the operator's kubeconfig at `spec.kubernetes.kubeconfig`, mode 0600.
//! * Changes: on control planes and workers, over SSH: kernel modules and settings, swap, the packages containerd,
//!   kubeadm, kubelet, kubectl and chrony, containerd's configuration, and what kubeadm does. In the cluster: labels
//!   and taints of its nodes.
//! * Needs: Debian or Ubuntu, root by sudo, and an API address (lb-render, vip-keepalive) that leads to the control
//!   planes.
//!
//! What a machine is follows from evidence alone: the files that kubeadm leaves, etcd's members, the node objects.
//! Tokens and certificate keys are made here for one join each; they travel in files of mode 0600 on a machine's
//! memory file system and never as arguments.
//!
//! Each file needs only those before it:
//!
//! ```text
//! plain data  access · args · clock · fault · pin · probed · said · seen · source · step
//! ground      api · certificate · etcd · kubeconfig · node · files · state · version
//! wanted      approver · want · fields · images
//! machine     hosts · kernel · look · pins · prepare · probe · wal
//! kubeadm     evidence · token · kubeadm · config · serving · init · join · certs · roll · drain · label
//! plan        faults · course · build · existing · kubelet · exchange · merge · proxy · shrink · upgrade · plan
//! run         backup · restore · apply · observe · check
//! ```

pub mod access;
pub mod api;
pub mod apply;
pub mod approver;
pub mod args;
pub mod backup;
mod build;
pub mod certificate;
pub mod certs;
pub mod check;
mod clock;
pub mod config;
mod course;
pub mod drain;
pub mod etcd;
pub mod evidence;
pub mod exchange;
pub mod existing;
pub mod fault;
pub mod faults;
pub mod fields;
pub mod files;
pub mod hosts;
pub mod images;
mod init;
mod join;
mod kernel;
pub mod kubeadm;
pub mod kubeconfig;
pub mod kubelet;
pub mod label;
pub mod look;
pub mod merge;
pub mod node;
pub mod observe;
pub mod pin;
pub mod pins;
pub mod plan;
pub mod prepare;
pub mod probe;
pub mod probed;
pub mod proxy;
pub mod restore;
pub mod roll;
pub mod said;
pub mod seen;
pub mod serving;
mod shrink;
pub mod source;
pub mod state;
pub mod step;
mod token;
pub mod upgrade;
mod version;
pub mod wal;
pub mod want;

use std::collections::{BTreeMap, BTreeSet};

use cluster_doc::{Document, Section};
use fleet::Fleet;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use serde_json::{Value, json};
use stage::{Ctx, Failure, Finding, Guard, Own, Plan, Rendered, Site, Tool};
use tokio::sync::Mutex;

use crate::api::Api;
use crate::seen::Seen;
use crate::step::Step;
use crate::want::Want;

/// The sections that are read.
pub const READS: &[Section] = &[
    Section::Network,
    Section::Vip,
    Section::Ssh,
    Section::Pools,
    Section::Machines,
    Section::Kubernetes,
    Section::Cni,
    Section::Packages,
    Section::Artifacts,
    Section::Registry,
    Section::Backup,
];
/// The field manager of what is ours in the cluster.
pub const MANAGER: &str = "kubeline-kadm-bootstrap";

/// The tool.
pub struct KadmBootstrap;

/// Open connections.
pub struct World {
    /// The machines.
    pub fleet: Fleet,
    /// The API, once there is one.
    pub(crate) api: Mutex<Option<Api>>,
    /// What was found of each machine before it was set up; once in a run.
    pub(crate) probes: Mutex<BTreeMap<String, probed::Probed>>,
}

impl World {
    /// The admin.conf of a control plane.
    pub(crate) async fn admin_conf(&self, name: &str) -> Result<String, Failure> {
        let path = "/etc/kubernetes/admin.conf";
        let doing = format!("cannot read {path} on {name}");
        let read = self.fleet.host(name)?.read(path).await.map_err(|e| fleet::failure(&doing, &e))?;
        let bytes = read.ok_or_else(|| Failure::transient(&doing).because("there is none"))?;
        String::from_utf8(bytes).map_err(|_| Failure::precondition(doing).because("it is no text"))
    }

    /// The API through the VIP, with a control plane's admin.conf.
    pub(crate) async fn api(&self, via: &str, want: &Want) -> Result<Api, Failure> {
        let mut known = self.api.lock().await;
        if let Some(api) = &*known {
            return Ok(api.clone());
        }
        let text = self.admin_conf(via).await?;
        let api = Api::connect(&text, Some(&format!("https://{}", want.endpoint))).await?;
        *known = Some(api.clone());
        Ok(api)
    }
}

impl Tool for KadmBootstrap {
    const NAME: &'static str = "kadm-bootstrap";
    const ABOUT: &'static str = "Make a highly available Kubernetes with kubeadm";
    const TEACH: &'static str = "Examples:\n  kadm-bootstrap plan -f cluster.json\n  kadm-bootstrap < cluster.json > next.json\n  \
        kadm-bootstrap check -f cluster.json\n\nFiles:\n  spec.kubernetes.kubeconfig  written with mode 0600 once the API answers at the VIP";
    const READS: &'static [Section] = READS;

    type Flags = args::Flags;
    type Verb = args::Verb;
    type Want = Want;
    type World = World;
    type Seen = Seen;
    type Step = Step;

    fn want(flags: &args::Flags, doc: &Document, site: &Site) -> Result<Want, Failure> {
        want::want(flags, doc, site)
    }

    async fn connect(want: &Want, ctx: &Ctx) -> Result<World, Failure> {
        let fleet = Fleet::connect(&want.route, ctx).await?;
        Ok(World { fleet, api: Mutex::new(None), probes: Mutex::default() })
    }

    async fn observe(world: &World, want: &Want, ctx: &Ctx) -> Result<Seen, Failure> {
        Box::pin(observe::observe(world, want, ctx)).await
    }

    fn plan(want: &Want, seen: &Seen) -> Plan<Step> {
        plan::plan(want, seen)
    }

    async fn guard(
        plan: &Plan<Step>,
        world: &World,
        want: &Want,
        ctx: &Ctx,
    ) -> Result<Option<Guard>, Failure> {
        // Every control plane, whichever machines change: two runs on different machines would both change etcd's members.
        // Unlike a Lease these locks are there before the cluster, while its API is away, and gone with a killed run.
        let reached = |n: &&node::Node| world.fleet.get(&n.name).is_some();
        let planes: BTreeSet<&str> = want.control_planes().filter(reached).map(|n| n.name.as_str()).collect();
        let all: BTreeSet<&str> = planes.iter().copied().chain(plan.steps().filter_map(Step::host)).collect();
        let first = world.fleet.lock(&planes, ctx).await?;
        let guard = (first, world.fleet.lock_beside(all.difference(&planes), ctx).await?);
        let mut idle = Vec::new();
        for name in all {
            idle.push(kubeadm::idle(world.fleet.host(name)?, ctx).boxed());
        }
        futures::stream::iter(idle).buffer_unordered(ctx.jobs()).try_collect::<()>().await?;
        Ok(Some(Box::new(guard)))
    }

    async fn apply(step: &Step, world: &World, want: &Want, ctx: &Ctx) -> Result<(), Failure> {
        apply::apply(step, world, want, ctx).await
    }

    fn status(want: &Want, seen: &Seen) -> Value {
        let cluster = seen.cluster.as_ref();
        json!({
            "version": want.version.to_string(),
            "endpoint": want.endpoint,
            "kubeconfig": want.kubeconfig_shown,
            "caDigest": cluster.map(|c| format!("sha256:{}", c.ca)),
            "kubeletServingCertificates": plan::serving_certificates(want, seen),
            "controlPlaneMetrics": plan::serves_metrics(want, seen),
            "controlPlanes": plan::members(want, seen, true),
            "workers": plan::members(want, seen, false),
        })
    }

    fn check(want: &Want, seen: &Seen) -> Vec<Finding> {
        check::check(want, seen)
    }

    fn overview(_want: &Want, seen: &Seen) -> Option<String> {
        check::overview(seen)
    }

    fn render(want: &Want) -> Result<Option<Vec<Rendered>>, Failure> {
        let mut all = Vec::new();
        for (n, node) in want.nodes.iter().enumerate() {
            let mut add = |path: &str, content: &str| {
                let path = format!("{}{path}", node.name);
                all.push(Rendered { path, content: content.as_bytes().to_vec() });
            };
            for (path, file) in &want.files.kernel {
                add(path, &file.content);
            }
            if let Some(list) = &want.files.list {
                add(files::LIST, &list.content);
            }
            add(files::CONTAINERD, &want.files.containerd_2.content);
            if n == 0 {
                add("/kubeadm-init.yaml", &config::init(want, node, None, None, config::Etcd::New)?);
            }
        }
        let manifests = want.approver.files().map_err(|e| {
            Failure::internal("cannot write the manifests of the approver").because(e.to_string())
        })?;
        all.extend(
            manifests.into_iter().map(|(path, text)| Rendered {
                path: format!("manifests/{path}"),
                content: text.into_bytes(),
            }),
        );
        Ok(Some(all))
    }

    fn own(verb: &args::Verb, want: &Want, site: &Site) -> Result<Own<Self>, Failure> {
        Ok(match verb.clone() {
            args::Verb::Certs { renew: false, within, .. } => {
                Own::Look(Box::new(move |_, seen| Ok(certs::table(seen, within))))
            }
            args::Verb::Certs { within, consent, .. } => Own::Settle {
                consent: Some(consent),
                planner: Box::new(move |want, seen| certs::plan(want, seen, within)),
            },
            args::Verb::Images { upstream } => Own::Tell(Box::new(move |want| images::list(want, upstream))),
            args::Verb::Backup { dir, recipient } => {
                let to = backup::recipient(recipient.as_deref(), want)?;
                let dir = site.absolute(&dir);
                let shown = dir.clone();
                Own::Once {
                    consent: None,
                    intent: Box::new(move |_, seen| backup::intent(seen, &shown)),
                    run: Box::new(move |world, want, seen, ctx| {
                        Box::pin(async move { backup::take(&dir, &to, world, want, seen, ctx).await })
                    }),
                }
            }
            args::Verb::Restore { backup, identity, consent } => {
                let (found, _) = backup::find(&backup, &identity, site)?;
                Own::Settle {
                    consent: Some(consent),
                    planner: Box::new(move |want, seen| restore::plan(want, seen, &found)),
                }
            }
        })
    }

    fn teardown(want: &Want, seen: &Seen) -> Plan<Step> {
        plan::teardown(want, seen)
    }
}
