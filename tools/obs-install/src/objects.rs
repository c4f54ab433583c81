//! The objects, from our templates.

use std::collections::BTreeMap;

use addon::{Addon, Installer as _, ObjectId, Ready};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use render::Template;
use serde::Serialize;
use serde_json::{Value, json};
use stage::Failure;

use crate::{Observability, dashboards};

/// What the templates are filled with.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Settings {
    /// The cluster's name, which every series carries.
    pub cluster: String,
    /// Prometheus.
    pub metrics: Metrics,
    /// Loki and its agent.
    pub logs: Option<Logs>,
    /// Grafana.
    pub grafana: Option<Grafana>,
    /// The worker with the local volumes.
    pub local_node: Option<LocalNode>,
    /// HAProxy's metrics.
    pub balancers: Vec<Balancer>,
    /// The control planes whose metrics can be had.
    pub control_planes: Vec<ControlPlane>,
    /// Whether the kubelets' certificates are the cluster's.
    pub kubelet_certificates: bool,
}

/// Prometheus.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the name says it")]
pub struct Metrics {
    pub retention_hours: u32,
    pub retention_bytes: u64,
    pub volume: Volume,
}

/// Loki and its agent.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the name says it")]
pub struct Logs {
    pub agent: &'static str,
    pub retention_hours: u32,
    pub volume: Volume,
}

/// A claim, and where its volume lies.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Volume {
    /// Who uses it.
    pub name: &'static str,
    /// Its size.
    pub size: String,
    /// True for a folder of one worker, false for the default class.
    pub local: bool,
}

/// Grafana.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Grafana {
    /// Its host name.
    pub host: String,
    /// Whether there is an ingress to put it behind.
    pub ingress: bool,
    /// The issuer of its certificate.
    pub issuer: Option<&'static str>,
}

/// The worker with the local volumes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LocalNode {
    /// Its name.
    pub name: String,
    /// What its pods must tolerate.
    pub tolerations: Vec<Toleration>,
}

/// A taint that is tolerated, whatever its value.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the name says it")]
pub struct Toleration {
    pub key: String,
    pub effect: &'static str,
}

/// A load balancer's metrics.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the name says it")]
pub struct Balancer {
    pub name: String,
    pub target: String,
}

/// A control plane's metrics.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the name says it")]
pub struct ControlPlane {
    pub name: String,
    pub address: String,
}

/// One text of a ConfigMap.
#[derive(Serialize)]
struct Texts {
    settings: Settings,
    /// By file name.
    files: BTreeMap<&'static str, String>,
    /// Changes with the files, so that pods that do not look again are replaced.
    digest: String,
}

macro_rules! template {
    ($name:literal) => {
        Template::new($name, include_str!(concat!("templates/", $name, ".j2")))
    };
}

const NAMESPACE: Template<Settings> = template!("namespace.yaml");
const VOLUMES: Template<Settings> = template!("volumes.yaml");
const STATE: Template<Settings> = template!("kube-state-metrics.yaml");
const NODES: Template<Settings> = template!("node-exporter.yaml");
const SERVER: Template<Settings> = template!("metrics-server.yaml");
const PROMETHEUS_CONFIG: Template<Settings> = template!("prometheus.yml");
const RULES: Template<Settings> = template!("rules.yml");
const PROMETHEUS: Template<Texts> = template!("prometheus.yaml");
const LOKI_CONFIG: Template<Settings> = template!("loki.yml");
const LOKI: Template<Texts> = template!("loki.yaml");
const PROMTAIL_CONFIG: Template<Settings> = template!("promtail.yml");
const PROMTAIL: Template<Texts> = template!("promtail.yaml");
const ALLOY_CONFIG: Template<Settings> = template!("config.alloy");
const ALLOY: Template<Texts> = template!("alloy.yaml");
const DATASOURCES: Template<Settings> = template!("datasources.yml");
const GRAFANA: Template<Texts> = template!("grafana.yaml");

pub(crate) fn addon(settings: &Settings, registry: Option<&String>) -> Result<Addon, Failure> {
    let mut addon = Addon::new(Observability::NAME);
    addon.wave();
    for (name, template) in [
        ("namespace.yaml", &NAMESPACE),
        ("volumes.yaml", &VOLUMES),
        ("kube-state-metrics.yaml", &STATE),
        ("node-exporter.yaml", &NODES),
        ("metrics-server.yaml", &SERVER),
    ] {
        addon.add(name, &filled(template, settings)?)?;
    }
    let config =
        [("prometheus.yml", filled(&PROMETHEUS_CONFIG, settings)?), ("rules.yml", filled(&RULES, settings)?)];
    addon.add("prometheus.yaml", &filled(&PROMETHEUS, &texts(settings, config))?)?;
    if let Some(logs) = &settings.logs {
        let config = [("loki.yml", filled(&LOKI_CONFIG, settings)?)];
        addon.add("loki.yaml", &filled(&LOKI, &texts(settings, config))?)?;
        if logs.agent == "promtail" {
            let config = [("promtail.yml", filled(&PROMTAIL_CONFIG, settings)?)];
            addon.add("promtail.yaml", &filled(&PROMTAIL, &texts(settings, config))?)?;
        } else {
            let config = [("config.alloy", filled(&ALLOY_CONFIG, settings)?)];
            addon.add("alloy.yaml", &filled(&ALLOY, &texts(settings, config))?)?;
        }
    }
    if settings.grafana.is_some() {
        let mut files: Vec<(&'static str, String)> = dashboards::all(settings.logs.is_some())
            .into_iter()
            .map(|(name, text)| (name, text.to_owned()))
            .collect();
        files.push(("datasources.yml", filled(&DATASOURCES, settings)?));
        addon.add("grafana.yaml", &filled(&GRAFANA, &texts(settings, files))?)?;
        addon.add_once(ObjectId::new("v1", "Secret", Some("monitoring"), "grafana-admin"), admin);
    }
    addon
        .until_workloads()
        .until([Ready::Api { name: "v1beta1.metrics.k8s.io".to_owned() }])
        .mirror(registry);
    Ok(addon)
}

fn texts(settings: &Settings, files: impl IntoIterator<Item = (&'static str, String)>) -> Texts {
    let files: BTreeMap<&'static str, String> = files.into_iter().collect();
    let digest = addon::digest(files.values());
    Texts { settings: settings.clone(), files, digest }
}

/// Grafana's first administrator, with a password that nobody has seen.
fn admin(id: &ObjectId) -> Value {
    let password = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 24]>());
    json!({
        "apiVersion": id.api_version,
        "kind": id.kind,
        "metadata": {
            "name": id.name,
            "namespace": id.namespace,
            "labels": {"app.kubernetes.io/name": "grafana", "app.kubernetes.io/managed-by": "kubeline"},
        },
        "type": "Opaque",
        "data": {"username": STANDARD.encode("admin"), "password": STANDARD.encode(password)},
    })
}

fn filled<T: Serialize>(template: &Template<T>, data: &T) -> Result<String, Failure> {
    template.render(data).map_err(|e| Failure::internal(e.to_string()).caused_by(&e))
}
