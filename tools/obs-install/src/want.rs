//! What the operator wants: every refusal of input is here.

use addon::{Access, Addon, Flags, Installer as _};
use cluster_doc::spec::{LogAgent, Role, VolumePlace};
use cluster_doc::{Document, Effect, Machine, Pointer, Quantity, Refusals};
use serde::Deserialize;
use stage::{Failure, Site};

use crate::Observability;
use crate::objects::{
    self, Balancer, ControlPlane, Grafana, LocalNode, Logs, Metrics, Settings, Toleration, Volume,
};

/// How much of its volume Prometheus may fill: it needs room to compact (its manual, storage).
const FILL: u64 = 80;

/// What the operator wants.
#[derive(Debug)]
pub struct Want {
    /// How the cluster is reached.
    pub access: Access,
    /// What the templates are filled with.
    pub settings: Settings,
    /// The objects.
    pub addon: Addon,
    /// What is right but worth a word.
    pub warnings: Vec<String>,
}

/// What kadm-bootstrap says of the control planes; nothing of it unless it says so.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Bootstrap {
    /// etcd, the controller manager and the scheduler serve metrics on the node's address.
    control_plane_metrics: bool,
    /// The kubelets' serving certificates are the cluster CA's.
    kubelet_serving_certificates: bool,
}

impl addon::Wanted for Want {
    fn access(&self) -> &Access {
        &self.access
    }

    fn addon(&self) -> &Addon {
        &self.addon
    }
}

pub(crate) fn want(flags: &Flags, doc: &Document, site: &Site) -> Result<Want, Failure> {
    let spec = doc.spec(Observability::READS)?;
    let wanted = spec.observability()?;
    let machines = doc.machines(&spec);
    let of = |role: Role| machines.iter().filter(move |m| m.role == role && !m.leaving);
    let at = Pointer::root().key("spec").key("observability");
    let mut wrong = Refusals::default();
    let logs = wanted.logs.as_ref();
    // Loki's compactor refuses less (its manual, retention), and its index has periods of a day.
    if logs.is_some_and(|logs| logs.retention.hours() < 24) {
        wrong.add(at.key("logs").key("retention"), "is less than Loki can keep; write 1d or more");
    }
    let local = wanted.prometheus.storage == VolumePlace::Local
        || logs.is_some_and(|logs| logs.storage == VolumePlace::Local);
    let worker = local_worker(&machines);
    if local && worker.is_none() {
        wrong
            .add(at, "wants a local volume, and there is no worker to hold it; write \"storage\": \"class\"");
    }
    if !wrong.is_empty() {
        return Err(doc.locate(wrong).into());
    }
    let mut warnings = Vec::new();
    if wanted.prometheus.storage == VolumePlace::Class
        || logs.is_some_and(|l| l.storage == VolumePlace::Class)
    {
        warnings.push(
            "spec.observability: storage \"class\" lies on the default class; over NFS neither Prometheus nor Loki is safe \
             (prometheus.io/docs, storage)"
                .to_owned(),
        );
    }
    if logs.is_some_and(|logs| logs.agent == LogAgent::Promtail) {
        warnings.push(
            "spec.observability.logs.agent: Promtail has had no fixes since March 2026; \"alloy\" is its successor".to_owned(),
        );
    }
    let bootstrap: Bootstrap = doc.status("kadm-bootstrap").unwrap_or_default();
    let stats_port = spec.load_balancer.clone().unwrap_or_default().stats_port.get();
    let certificates = spec.ingress.as_ref().and_then(|ingress| ingress.certificates.as_ref());
    let issuer = certificates.and_then(|c| match (&c.vault, &c.acme) {
        (Some(_), _) => Some("vault"),
        (None, Some(_)) => Some("acme"),
        (None, None) => None,
    });
    let settings = Settings {
        cluster: doc.name().map(ToString::to_string).unwrap_or_else(|| "kubernetes".to_owned()),
        metrics: Metrics {
            retention_hours: wanted.prometheus.retention.hours(),
            // In bytes, so that the unit needs no thought.
            retention_bytes: wanted.prometheus.size.bytes() / 100 * FILL,
            volume: volume("prometheus", wanted.prometheus.size, wanted.prometheus.storage),
        },
        logs: logs.map(|logs| Logs {
            agent: match logs.agent {
                LogAgent::Promtail => "promtail",
                LogAgent::Alloy => "alloy",
            },
            retention_hours: logs.retention.hours(),
            volume: volume("loki", logs.size, logs.storage),
        }),
        grafana: wanted.grafana.as_ref().map(|grafana| Grafana {
            host: grafana.host.to_string(),
            ingress: spec.ingress.is_some(),
            issuer,
        }),
        local_node: worker.filter(|_| local).map(|worker| LocalNode {
            name: worker.name.clone(),
            tolerations: worker
                .taints
                .iter()
                .filter(|taint| taint.effect != Effect::PreferNoSchedule)
                .map(|taint| Toleration { key: taint.key.to_string(), effect: taint.effect.word() })
                .collect(),
        }),
        balancers: of(Role::LoadBalancer)
            .map(|m| Balancer { name: m.name.clone(), target: format!("{}:{stats_port}", m.address) })
            .collect(),
        control_planes: of(Role::ControlPlane)
            .filter(|_| bootstrap.control_plane_metrics)
            .map(|m| ControlPlane { name: m.name.clone(), address: m.address.to_string() })
            .collect(),
        kubelet_certificates: bootstrap.kubelet_serving_certificates,
    };
    let addon = objects::addon(&settings, spec.registry.as_ref())?;
    Ok(Want { access: Access::new(flags, doc, &spec, site), settings, addon, warnings })
}

/// The worker that holds the local volumes: the first that takes any pod, else the first. It follows from the
/// document alone, because data does not move along with a change of mind.
fn local_worker(machines: &[Machine]) -> Option<&Machine> {
    let mut workers = machines.iter().filter(|m| m.role == Role::Worker && !m.leaving);
    let open = |m: &&Machine| m.taints.iter().all(|taint| taint.effect == Effect::PreferNoSchedule);
    workers.clone().find(open).or_else(|| workers.next())
}

fn volume(name: &'static str, size: Quantity, place: VolumePlace) -> Volume {
    Volume { name, size: size.to_string(), local: place == VolumePlace::Local }
}
