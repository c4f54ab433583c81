//! The objects: Traefik's and the issuers' from our templates, the rest as their publishers made it.

use addon::{Addon, Installer as _, Ready, Texts};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use render::Template;
use serde::Serialize;
use stage::Failure;

use crate::Ingress;

/// What the templates are filled with.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Settings {
    /// Traefik's image.
    pub image: String,
    /// The workers' taints, which Traefik tolerates.
    pub tolerations: Vec<Toleration>,
    /// The NodePort of HTTP.
    pub http_node_port: u16,
    /// The NodePort of HTTPS.
    pub https_node_port: u16,
    /// The NodePort of the ping.
    pub ping_node_port: u16,
    /// The shared address, which an Ingress shows as its own.
    pub vip: String,
    /// The port of HTTPS on the shared address.
    pub https_port: u16,
    /// The load balancers' addresses, whose word on a client's address is believed.
    pub trusted: String,
    /// True when the load balancers terminate TLS.
    pub terminated: bool,
    /// Vault as an issuer.
    pub vault: Option<VaultIssuer>,
    /// ACME as an issuer.
    pub acme: Option<AcmeIssuer>,
}

/// A taint that is tolerated.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Toleration {
    /// The taint's key.
    pub key: String,
    /// `Equal`: the value counts.
    pub operator: &'static str,
    /// The taint's value.
    pub value: String,
    /// The taint's effect.
    pub effect: &'static str,
}

/// Vault as an issuer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VaultIssuer {
    /// Its address.
    pub server: String,
    /// The CA of its own certificate, base64 of PEM.
    pub ca_bundle: Option<String>,
    /// Where it signs.
    pub path: String,
    /// Log in by AppRole.
    pub app_role: Option<AppRoleLogin>,
    /// Log in by a service account.
    pub kubernetes: Option<KubernetesLogin>,
}

/// A login by AppRole.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AppRoleLogin {
    /// The mount of the method.
    pub path: String,
    /// The role's id.
    pub role_id: String,
}

/// A login by a service account.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KubernetesLogin {
    /// The mount of the method, as a path of Vault's API.
    pub mount_path: String,
    /// The role at Vault.
    pub role: String,
}

/// ACME as an issuer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AcmeIssuer {
    /// Its directory.
    pub server: String,
    /// The address that it writes to.
    pub email: String,
}

/// The secret of a login, for its Secret.
#[derive(Serialize)]
struct AppRoleSecret {
    secret_id: String,
}

const TRAEFIK: Template<Settings> = Template::new("traefik.yaml", include_str!("templates/traefik.yaml.j2"));
const ISSUERS: Template<Settings> = Template::new("issuers.yaml", include_str!("templates/issuers.yaml.j2"));
const SECRET: Template<AppRoleSecret> =
    Template::new("vault-approle.yaml", include_str!("templates/vault-approle.yaml.j2"));

pub(crate) fn addon(
    settings: &Settings,
    texts: &Texts,
    secret_id: Option<&str>,
    registry: Option<&String>,
) -> Result<Addon, Failure> {
    let mut addon = Addon::new(Ingress::NAME);
    addon.wave().add("traefik.yaml", &filled(&TRAEFIK, settings)?)?;
    for (name, text) in texts {
        addon.add(name, text)?;
    }
    addon.until_workloads();
    if settings.vault.is_some() || settings.acme.is_some() {
        addon.until(
            ["ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"].map(|kind| Ready::Webhook {
                kind: kind.to_owned(),
                name: "cert-manager-webhook".to_owned(),
            }),
        );
        addon.wave().add("issuers.yaml", &filled(&ISSUERS, settings)?)?;
        if let Some(secret_id) = secret_id {
            let data = AppRoleSecret { secret_id: STANDARD.encode(secret_id) };
            addon.add("vault-approle.yaml", &filled(&SECRET, &data)?)?;
        }
        let issuers = [("vault", settings.vault.is_some()), ("acme", settings.acme.is_some())];
        addon.until(issuers.into_iter().filter(|(_, wanted)| *wanted).map(|(name, _)| Ready::Condition {
            api_version: "cert-manager.io/v1".to_owned(),
            kind: "ClusterIssuer".to_owned(),
            name: name.to_owned(),
            condition: "Ready".to_owned(),
        }));
    }
    addon.mirror(registry);
    Ok(addon)
}

fn filled<T: Serialize>(template: &Template<T>, data: &T) -> Result<String, Failure> {
    template.render(data).map_err(|e| Failure::internal(e.to_string()).caused_by(&e))
}
