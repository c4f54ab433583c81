//! The objects: Calico as its publisher made it, and ours.

use addon::{Addon, Installer as _, Ready, Texts};
use render::Template;
use serde::Serialize;
use stage::Failure;

use crate::Calico;
use crate::manifest;
use crate::settings::{Policies, Settings};

const ENDPOINT: Template<Settings> =
    Template::new("endpoint.yaml", include_str!("templates/endpoint.yaml.j2"));
const INSTALLATION: Template<Settings> =
    Template::new("installation.yaml", include_str!("templates/installation.yaml.j2"));
const FELIX: Template<Settings> = Template::new("felix.yaml", include_str!("templates/felix.yaml.j2"));
const POLICIES: Template<Policies> =
    Template::new("policies.yaml", include_str!("templates/policies.yaml.j2"));

/// The definitions that our own objects of Calico's kinds need.
const KINDS: [&str; 4] = ["bgpconfigurations", "bgppeers", "felixconfigurations", "globalnetworkpolicies"];

/// Calico first, then what it is told.
pub(crate) fn addon(settings: &Settings, texts: &Texts, registry: Option<&String>) -> Result<Addon, Failure> {
    let mut addon = Addon::new(Calico::NAME);
    addon.wave();
    for (name, text) in texts {
        addon.add(name, text)?;
    }
    if settings.api_host.is_some() {
        addon.add("endpoint.yaml", &filled(&ENDPOINT, settings)?)?;
    }
    // What is read at the start: the API's address.
    addon.first(|id| matches!(id.kind.as_str(), "Namespace" | "ConfigMap"));
    match settings.operator {
        true => by_operator(&mut addon, settings)?,
        false => by_manifest(&mut addon, settings)?,
    }
    addon.until(KINDS.map(|name| Ready::Definition { name: format!("{name}.crd.projectcalico.org") }));
    addon
        .until([Ready::Nodes, Ready::Deployment { namespace: "kube-system".into(), name: "coredns".into() }]);
    addon.wave().add("felix.yaml", &filled(&FELIX, settings)?)?;
    if let Some(policies) = &settings.policies {
        addon.add("policies.yaml", &filled(&POLICIES, policies)?)?;
    }
    addon.mirror(registry);
    Ok(addon)
}

fn by_operator(addon: &mut Addon, settings: &Settings) -> Result<(), Failure> {
    let deployment = |name: &str| Ready::Deployment { namespace: "calico-system".into(), name: name.into() };
    addon.until([
        Ready::Deployment { namespace: "tigera-operator".into(), name: "tigera-operator".into() },
        // The operator makes these two itself (its flag -manage-crds).
        Ready::Definition { name: "installations.operator.tigera.io".into() },
        Ready::Definition { name: "tigerastatuses.operator.tigera.io".into() },
    ]);
    addon.wave().add("installation.yaml", &filled(&INSTALLATION, settings)?)?;
    addon.until([
        Ready::DaemonSet { namespace: "calico-system".into(), name: "calico-node".into() },
        deployment("calico-kube-controllers"),
        deployment("calico-typha"),
        Ready::Tigera { name: "ippools".into() },
        Ready::Tigera { name: "calico".into() },
    ]);
    Ok(())
}

fn by_manifest(addon: &mut Addon, settings: &Settings) -> Result<(), Failure> {
    // Without artefacts (`lint`, `plan` of a refused document) there is nothing to change yet.
    if !addon.is_empty() {
        manifest::adapt(addon, settings)?;
    }
    addon.until([
        Ready::DaemonSet { namespace: "kube-system".into(), name: "calico-node".into() },
        Ready::Deployment { namespace: "kube-system".into(), name: "calico-kube-controllers".into() },
    ]);
    Ok(())
}

fn filled<T: Serialize>(template: &Template<T>, data: &T) -> Result<String, Failure> {
    template.render(data).map_err(|e| Failure::internal(e.to_string()).caused_by(&e))
}
