//! The objects: the operator's manifest as it is, and ours.

use addon::{Addon, Installer as _, Ready, Texts};
use render::Template;
use stage::Failure;

use crate::Calico;
use crate::want::Settings;

const ENDPOINT: Template<Settings> =
    Template::new("endpoint.yaml", include_str!("templates/endpoint.yaml.j2"));
const INSTALLATION: Template<Settings> =
    Template::new("installation.yaml", include_str!("templates/installation.yaml.j2"));

/// The operator first, then what it is told.
pub(crate) fn addon(settings: &Settings, texts: &Texts, registry: Option<&String>) -> Result<Addon, Failure> {
    let filled = |template: &Template<Settings>| {
        template.render(settings).map_err(|e| Failure::internal(e.to_string()).caused_by(&e))
    };
    let namespaced = |name: &str| ("calico-system".to_owned(), name.to_owned());
    let deployment = |(namespace, name)| Ready::Deployment { namespace, name };
    let mut addon = Addon::new(Calico::NAME);
    addon.wave();
    for (name, text) in texts {
        addon.add(name, text)?;
    }
    if settings.api_host.is_some() {
        addon.add("endpoint.yaml", &filled(&ENDPOINT)?)?;
    }
    // The operator reads the API's address when it starts.
    addon.first(|id| matches!(id.kind.as_str(), "Namespace" | "ConfigMap"));
    addon.until([
        Ready::Deployment { namespace: "tigera-operator".into(), name: "tigera-operator".into() },
        // The operator makes these two itself (its flag -manage-crds).
        Ready::Definition { name: "installations.operator.tigera.io".into() },
        Ready::Definition { name: "tigerastatuses.operator.tigera.io".into() },
    ]);
    addon.wave().add("installation.yaml", &filled(&INSTALLATION)?)?;
    let (namespace, name) = namespaced("calico-node");
    addon.until([
        Ready::DaemonSet { namespace, name },
        deployment(namespaced("calico-kube-controllers")),
        deployment(namespaced("calico-typha")),
        Ready::Tigera { name: "ippools".into() },
        Ready::Tigera { name: "calico".into() },
        Ready::Nodes,
        Ready::Deployment { namespace: "kube-system".into(), name: "coredns".into() },
    ]);
    addon.mirror(registry);
    Ok(addon)
}
