//! What the operator wants: the sections of `spec`.

mod addons;
mod cluster;
mod cni;
mod hardware;
mod site;

use serde_json::{Map, Value, json};

pub use addons::{
    Acme, AppRole, Artifact, Certificates, Export, ExportBackup, Grafana, Ingress, IngressProvider, LogAgent,
    Logs, Observability, OnDelete, Prometheus, Storage, Vault, VaultAuth, VaultServiceAccount, VolumePlace,
};
pub use cluster::{Backup, EtcdBackup, Kubernetes, MachineBackup, PackageSource, Packages};
pub use cni::{Bgp, BgpPeer, Cni, CniInstall, CniProvider, Dataplane, Encapsulation, Policies};
pub use hardware::{
    CloneMode, ContainerTemplate, Disk, ExistingMachine, GuestKind, HighAvailability, Image, Pool, Proxmox,
    Role, Spread, StartOrder, Startup, Template, Ticket,
};
pub use site::{
    BalanceMode, Jump, Listener, ListenerMode, LoadBalancer, Network, Ssh, VaultListener, Vip, VipPorts,
};

use crate::read::{FromDoc, Node};
use crate::{Pointer, Refusals};

/// Declares the list of sections once: key, type, accessor.
macro_rules! sections {
    ($( $(#[doc = $doc:literal])* $section:ident $field:ident $key:literal : $ty:ty ),* $(,)?) => {
        /// A section of `spec`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Section { $( $(#[doc = $doc])* $section ),* }

        impl Section {
            /// All sections, in the order of the manual.
            pub const ALL: &'static [Section] = &[$(Section::$section),*];

            /// The key under `spec`.
            pub fn key(self) -> &'static str { match self { $(Section::$section => $key),* } }

            /// The section's schema.
            pub(crate) fn schema(self, generator: &mut schemars::SchemaGenerator) -> Value {
                match self { $(Section::$section => {
                    let mut schema = generator.subschema_for::<$ty>().to_value();
                    if let Value::Object(map) = &mut schema {
                        map.insert("description".into(), $crate::read::tidy(concat!($($doc, "\n"),*)).into());
                    }
                    schema
                }),* }
            }
        }

        /// The sections that were asked for; one that the document does not have is `None`.
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct Spec { $( $(#[doc = $doc])* pub $field: Option<$ty> ),* }

        impl Spec {
            pub(crate) fn read(map: &Map<String, Value>, wanted: &[Section], wrong: &mut Refusals) -> Spec {
                let mut spec = Spec::default();
                for section in wanted {
                    let Some(value) = map.get(section.key()) else { continue };
                    let node = Node { value, at: Pointer::root().key("spec").key(section.key()) };
                    match section { $( Section::$section => spec.$field = <$ty>::from_doc(&node, wrong) ),* }
                }
                spec
            }

            $(
                /// The section of this name.
                ///
                /// # Errors
                /// A refusal that says that the section is missing.
                pub fn $field(&self) -> Result<&$ty, Refusals> {
                    self.$field.as_ref().ok_or_else(|| missing($key))
                }
            )*
        }
    };
}

sections! {
    /// Where the machines are made: Proxmox VE.
    Proxmox proxmox "proxmox": Proxmox,
    /// The one L2 network that all machines share.
    Network network "network": Network,
    /// The address that the load balancers share by VRRP.
    Vip vip "vip": Vip,
    /// How the machines are reached.
    Ssh ssh "ssh": Ssh,
    /// Machines that pve-vm makes, by pool.
    Pools pools "pools": Vec<Pool>,
    /// Machines that exist already.
    Machines machines "machines": Vec<ExistingMachine>,
    /// HAProxy on the load balancers.
    LoadBalancer load_balancer "loadBalancer": LoadBalancer,
    /// The Kubernetes cluster.
    Kubernetes kubernetes "kubernetes": Kubernetes,
    /// The pod network.
    Cni cni "cni": Cni,
    /// NFS exports and their storage classes.
    Storage storage "storage": Storage,
    /// The way in for HTTP, and certificates.
    Ingress ingress "ingress": Ingress,
    /// Metrics, logs, dashboards.
    Observability observability "observability": Observability,
    /// What is saved, when, and how much of it is kept.
    Backup backup "backup": Backup,
    /// Where the machines' packages come from.
    Packages packages "packages": Packages,
    /// Other addresses and digests for upstream artefacts.
    Artifacts artifacts "artifacts": Vec<Artifact>,
    /// A registry mirror that every image is taken from, such as `registry.lab.example/mirror`.
    Registry registry "registry": String,
}

fn missing(key: &str) -> Refusals {
    Refusals::one(Pointer::root().key("spec").key(key), format!("is missing; see: man 5 cluster-doc, {key}"))
}

/// The schema of `spec` with these sections, the others allowed but not described.
pub(crate) fn schema(wanted: &[Section], generator: &mut schemars::SchemaGenerator) -> Value {
    let mut properties = Map::new();
    for section in Section::ALL {
        let schema = if wanted.contains(section) { section.schema(generator) } else { json!(true) };
        properties.insert(section.key().to_owned(), schema);
    }
    json!({
        "type": "object",
        "description": "What the operator wants.",
        "properties": properties,
        "patternProperties": { "^x-": true },
        "additionalProperties": false,
    })
}
