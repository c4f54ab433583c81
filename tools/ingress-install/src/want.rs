//! What the operator wants: every refusal of input is here.

use std::collections::BTreeSet;

use addon::{Access, Addon, Artefact, Flags, Installer as _, Pin, Texts};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cluster_doc::spec::{Acme, BalanceMode, Certificates, Role, Vault};
use cluster_doc::{Document, FilePath, Pointer, Refusals};
use stage::{Failure, Site};

use crate::Ingress;
use crate::objects::{self, AcmeIssuer, AppRoleLogin, Settings, Toleration, VaultIssuer};

/// Traefik's image.
const TRAEFIK: &str = "docker.io/traefik:v3.7.11";

/// The definitions of Traefik's own kinds; those of v3.7.9 are also those of v3.7.11.
const DEFINITIONS: Pin = Pin {
    name: "traefik-crds",
    url: "https://raw.githubusercontent.com/traefik/traefik/v3.7.9/docs/content/reference/dynamic-configuration/kubernetes-crd-definition-v1.yml",
    sha256: "1d5e8558803804562238b0d4a57174aadd6d87c36e3c4c55199ebcc356a9406c",
    size: 248_801,
};

/// cert-manager, as its release has it.
const CERT_MANAGER: Pin = Pin {
    name: "cert-manager",
    url: "https://github.com/cert-manager/cert-manager/releases/download/v1.21.1/cert-manager.yaml",
    sha256: "5f6a499b8c1857d57f560f536e0dcc830914b45c420899fe7ad0692c8624e408",
    size: 1_034_400,
};

/// What the operator wants.
#[derive(Debug)]
pub struct Want {
    /// How the cluster is reached.
    pub access: Access,
    /// What the templates are filled with.
    pub settings: Settings,
    /// What is fetched.
    pub artefacts: Vec<Artefact>,
    /// The objects; complete once the artefacts are there.
    pub addon: Addon,
    secret_id_file: Option<FilePath>,
    registry: Option<String>,
}

impl Want {
    /// The AppRole's secret id.
    ///
    /// # Errors
    /// Exit 4 when the file is missing, or others can read it.
    pub fn secret_id(&self, site: &Site) -> Result<Option<String>, Failure> {
        let read = |path: &FilePath| site.secret("the AppRole's secret id", path);
        self.secret_id_file.as_ref().map(read).transpose()
    }

    /// What stands for the AppRole's secret id where nobody will see it.
    pub fn secret_unread(&self) -> Option<String> {
        self.secret_id_file.as_ref().map(|_| "(hidden)".to_owned())
    }

    /// Makes the objects, now that artefacts and secret are known.
    ///
    /// # Errors
    /// An artefact that holds no manifests.
    pub fn complete(&mut self, texts: &Texts, secret_id: Option<&str>) -> Result<(), Failure> {
        self.addon = objects::addon(&self.settings, texts, secret_id, self.registry.as_ref())?;
        Ok(())
    }

    /// The names of the issuers.
    pub fn issuers(&self) -> Vec<&'static str> {
        let vault = self.settings.vault.as_ref().map(|_| "vault");
        vault.into_iter().chain(self.settings.acme.as_ref().map(|_| "acme")).collect()
    }
}

impl addon::Wanted for Want {
    fn access(&self) -> &Access {
        &self.access
    }

    fn addon(&self) -> &Addon {
        &self.addon
    }

    fn artefacts(&self) -> &[Artefact] {
        &self.artefacts
    }
}

pub(crate) fn want(flags: &Flags, doc: &Document, site: &Site) -> Result<Want, Failure> {
    let spec = doc.spec(Ingress::READS)?;
    let (ingress, vip) = (spec.ingress()?, spec.vip()?);
    let access = Access::new(flags, doc, &spec, site);
    let machines = doc.machines(&spec);
    let trusted = machines.iter().filter(|m| m.role == Role::LoadBalancer && !m.leaving);
    let trusted: Vec<String> = trusted.map(|m| m.address.to_string()).collect();
    let workers = machines.iter().filter(|m| m.role == Role::Worker && !m.leaving);
    let taints = workers.flat_map(|m| &m.taints).map(|taint| Toleration {
        key: taint.key.to_string(),
        operator: "Equal",
        value: taint.value.to_string(),
        effect: taint.effect.word(),
    });
    let tolerations: Vec<Toleration> = BTreeSet::from_iter(taints).into_iter().collect();
    let mut wrong = Refusals::default();
    let at = Pointer::root().key("spec").key("ingress");
    let none = Certificates { vault: None, acme: None };
    let certificates = ingress.certificates.as_ref();
    if certificates == Some(&none) {
        wrong.add(at.key("certificates"), "names no authority; write vault or acme, or leave it out");
    }
    if let Some(acme) = certificates.and_then(|c| c.acme.as_ref()) {
        check_acme(acme, &at.key("certificates").key("acme"), &mut wrong);
    }
    if let Some(vault) = certificates.and_then(|c| c.vault.as_ref()) {
        check_vault(vault, &at.key("certificates").key("vault"), &mut wrong);
    }
    if !wrong.is_empty() {
        return Err(doc.locate(wrong).into());
    }
    let vault = certificates.and_then(|c| c.vault.as_ref());
    let acme = certificates.and_then(|c| c.acme.as_ref());
    let mut pins = vec![DEFINITIONS];
    pins.extend(certificates.map(|_| CERT_MANAGER));
    let balance = spec.load_balancer.clone().unwrap_or_default();
    let settings = Settings {
        image: TRAEFIK.to_owned(),
        tolerations,
        http_node_port: ingress.http_node_port.get(),
        https_node_port: ingress.https_node_port.get(),
        ping_node_port: ingress.ping_node_port.get(),
        vip: vip.address.to_string(),
        https_port: vip.ports.https.get(),
        trusted: trusted.join(","),
        terminated: balance.mode == BalanceMode::Terminate,
        vault: vault.map(|vault| issuer(vault, site)).transpose()?,
        acme: acme.map(|acme| AcmeIssuer { server: acme.server.clone(), email: acme.email.clone() }),
    };
    let secret_id_file =
        vault.and_then(|v| v.auth.app_role.as_ref()).map(|login| login.secret_id_file.clone());
    Ok(Want {
        access,
        settings,
        artefacts: addon::artefacts(&pins, spec.artifacts.as_ref()),
        addon: Addon::new(Ingress::NAME),
        secret_id_file,
        registry: spec.registry.clone(),
    })
}

fn check_acme(acme: &Acme, at: &Pointer, wrong: &mut Refusals) {
    if !acme.server.starts_with("https://") {
        let shown = &acme.server;
        wrong.add(at.key("server"), format!("\"{shown}\" is no ACME directory; it begins with https://"));
    }
    if acme.email.split('@').filter(|part| !part.is_empty()).count() != 2 {
        wrong.add(at.key("email"), format!("\"{}\" is no mail address", acme.email));
    }
}

fn check_vault(vault: &Vault, at: &Pointer, wrong: &mut Refusals) {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    for (field, value) in [("mount", &vault.mount), ("role", &vault.role)] {
        if value.is_empty()
            || !value.chars().all(plain)
            || value.split('/').any(|part| part.is_empty() || part == "..")
        {
            wrong.add(
                at.key(field),
                format!("\"{value}\" is no path at Vault; write for example \"pki_int\""),
            );
        }
    }
}

fn issuer(vault: &Vault, site: &Site) -> Result<VaultIssuer, Failure> {
    let ca = vault.ca_file.as_ref().map(|path| site.file("Vault's CA", path)).transpose()?;
    if ca
        .as_ref()
        .is_some_and(|ca| !ca.starts_with(b"-----BEGIN") && !ca.windows(11).any(|w| w == b"-----BEGIN "))
    {
        return Err(Failure::precondition("cannot use Vault's CA")
            .because("the file holds no certificate in PEM form"));
    }
    let server = vault.servers.first().map(ToString::to_string).unwrap_or_default();
    Ok(VaultIssuer {
        server,
        ca_bundle: ca.map(|pem| STANDARD.encode(pem)),
        path: format!("{}/sign/{}", vault.mount, vault.role),
        app_role: vault
            .auth
            .app_role
            .as_ref()
            .map(|login| AppRoleLogin { path: login.mount.clone(), role_id: login.role_id.clone() }),
        kubernetes: vault.auth.kubernetes.as_ref().map(|login| objects::KubernetesLogin {
            mount_path: format!("/v1/auth/{}", login.mount),
            role: login.role.clone(),
        }),
    })
}
