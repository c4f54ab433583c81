//! Who asks, and whether they may.

use base64::Engine as _;
use rustls::pki_types::CertificateDer;
use serde_json::Value;

use super::resources::Resource;
use super::selectors::Selector;
use super::status::Status;
use super::store::Store;

/// Who a connection or a request comes from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Identity {
    /// Nobody said who it is.
    Anonymous,
    /// A certificate or token that the cluster does not accept.
    Refused,
    /// Somebody.
    User {
        /// The name.
        name: String,
        /// The groups, without `system:authenticated`.
        groups: Vec<String>,
    },
}

impl Identity {
    /// From a client certificate that was verified: CN is the user, each O a group.
    pub(crate) fn of_certificate(certificate: &CertificateDer<'_>) -> Identity {
        let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else {
            return Identity::Refused;
        };
        let subject = parsed.subject();
        let name = subject.iter_common_name().find_map(|n| n.as_str().ok()).unwrap_or_default().to_owned();
        let groups = subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned).collect();
        Identity::User { name, groups }
    }

    /// From a bearer token: a bootstrap token, or one of a service account that the lab has issued.
    pub(crate) fn of_token(store: &Store, token: &str) -> Identity {
        if let Some((id, secret)) = token.split_once('.')
            && id.len() == 6
            && let Some(object) = store.get("secrets", "kube-system", &format!("bootstrap-token-{id}"))
        {
            let good = decoded(&object["data"]["token-secret"]) == secret
                && decoded(&object["data"]["usage-bootstrap-authentication"]) == "true";
            if good {
                let mut groups = vec!["system:bootstrappers".to_owned()];
                let extra = decoded(&object["data"]["auth-extra-groups"]);
                groups.extend(extra.split(',').filter(|g| !g.is_empty()).map(str::to_owned));
                return Identity::User { name: format!("system:bootstrap:{id}"), groups };
            }
        }
        let mut parts = token.split('.');
        if let (Some("lab"), Some(ns), Some(name), Some(uid)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
            && store.get("serviceaccounts", ns, name).is_some_and(|a| a["metadata"]["uid"] == uid)
        {
            return Identity::User {
                name: format!("system:serviceaccount:{ns}:{name}"),
                groups: vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{ns}")],
            };
        }
        Identity::Refused
    }

    /// The name in messages.
    pub(crate) fn name(&self) -> &str {
        match self {
            Identity::User { name, .. } => name,
            _ => "system:anonymous",
        }
    }

    /// The groups, with the one that everybody is in.
    pub(crate) fn groups(&self) -> Vec<String> {
        match self {
            Identity::User { groups, .. } => {
                let mut all = groups.clone();
                all.push("system:authenticated".into());
                all
            }
            _ => vec!["system:unauthenticated".into()],
        }
    }
}

fn decoded(value: &Value) -> String {
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(value.as_str().unwrap_or_default())
        .unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Wish<'w> {
    pub verb: &'w str,
    pub res: &'w Resource,
    pub sub: &'w str,
    pub ns: &'w str,
    pub name: &'w str,
}

/// True when the groups alone allow everything.
pub(crate) fn is_admin(identity: &Identity) -> bool {
    identity.groups().iter().any(|g| g == "system:masters" || g == "kubeadm:cluster-admins")
}

/// Whether this user may do this to resources.
pub(crate) fn allow(store: &Store, identity: &Identity, wish: &Wish<'_>) -> Result<(), Status> {
    if *identity == Identity::Refused {
        return Err(Status::unauthorized());
    }
    if is_admin(identity) || built_in(identity, wish) || by_rbac(store, identity, wish) {
        return Ok(());
    }
    Err(Status::denied(identity.name(), wish.verb, wish.res, wish.sub, wish.ns, wish.name))
}

// What the bootstrap roles of a real cluster allow.
fn built_in(identity: &Identity, wish: &Wish<'_>) -> bool {
    let plural = wish.res.plural.as_str();
    let reading = matches!(wish.verb, "get" | "list" | "watch");
    if wish.verb == "get" && plural == "configmaps" && wish.ns == "kube-public" && wish.name == "cluster-info"
    {
        return true;
    }
    let groups = identity.groups();
    let member = |group: &str| groups.iter().any(|g| g == group);
    if member("system:authenticated") && plural.starts_with("selfsubject") {
        return true;
    }
    if member("system:nodes") {
        let own = plural == "nodes" || plural == "leases" || plural == "events" || plural == "pods";
        return (reading && plural != "secrets") || (own && wish.verb != "deletecollection");
    }
    if member("system:bootstrappers") {
        let kubeadm = wish.ns == "kube-system"
            && matches!(wish.name, "kubeadm-config" | "kubelet-config" | "kube-proxy" | "kubeadm-certs");
        let csr = plural == "certificatesigningrequests"
            && matches!(wish.verb, "create" | "get" | "list" | "watch");
        return (wish.verb == "get" && (kubeadm || plural == "nodes")) || csr;
    }
    false
}

fn by_rbac(store: &Store, identity: &Identity, wish: &Wish<'_>) -> bool {
    let cluster = store.list("clusterrolebindings.rbac.authorization.k8s.io", None);
    let local =
        (!wish.ns.is_empty()).then(|| store.list("rolebindings.rbac.authorization.k8s.io", Some(wish.ns)));
    cluster.chain(local.into_iter().flatten()).any(|binding| {
        let bound = binding["subjects"].as_array().into_iter().flatten().any(|s| is_subject(identity, s));
        bound && role_allows(store, binding, wish)
    })
}

fn is_subject(identity: &Identity, subject: &Value) -> bool {
    let name = subject["name"].as_str().unwrap_or_default();
    match subject["kind"].as_str() {
        Some("User") => identity.name() == name,
        Some("Group") => identity.groups().iter().any(|g| g == name),
        Some("ServiceAccount") => {
            let ns = subject["namespace"].as_str().unwrap_or_default();
            identity.name() == format!("system:serviceaccount:{ns}:{name}")
        }
        _ => false,
    }
}

fn role_allows(store: &Store, binding: &Value, wish: &Wish<'_>) -> bool {
    let name = binding["roleRef"]["name"].as_str().unwrap_or_default();
    let role = if binding["roleRef"]["kind"] == "ClusterRole" {
        store.get("clusterroles.rbac.authorization.k8s.io", "", name)
    } else {
        let ns = binding["metadata"]["namespace"].as_str().unwrap_or_default();
        store.get("roles.rbac.authorization.k8s.io", ns, name)
    };
    let Some(role) = role else { return false };
    let mut rules: Vec<Value> = role["rules"].as_array().cloned().unwrap_or_default();
    for selector in
        role.pointer("/aggregationRule/clusterRoleSelectors").and_then(Value::as_array).into_iter().flatten()
    {
        let selector = Selector::of(selector);
        for other in store.list("clusterroles.rbac.authorization.k8s.io", None) {
            if selector.matches(&other["metadata"]["labels"]) {
                rules.extend(other["rules"].as_array().cloned().unwrap_or_default());
            }
        }
    }
    let resource = if wish.sub.is_empty() {
        wish.res.plural.clone()
    } else {
        format!("{}/{}", wish.res.plural, wish.sub)
    };
    rules.iter().any(|rule| {
        let has = |field: &str, wanted: &str| {
            rule[field]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .any(|v| v == "*" || v == wanted)
        };
        let named = rule["resourceNames"]
            .as_array()
            .is_none_or(|names| names.is_empty() || names.iter().any(|n| n == wish.name));
        has("verbs", wish.verb) && has("apiGroups", &wish.res.group) && has("resources", &resource) && named
    })
}

/// Whether this user may read a path that is no resource.
pub(crate) fn allow_path(identity: &Identity, path: &str) -> Result<(), Status> {
    let public = ["/healthz", "/livez", "/readyz", "/version"];
    if *identity == Identity::Refused {
        return Err(Status::unauthorized());
    }
    let open = public.iter().any(|p| path == *p || path.starts_with(&format!("{p}/")));
    match identity {
        Identity::User { .. } => Ok(()),
        _ if open => Ok(()),
        _ => Err(Status::denied_path("system:anonymous", "get", path)),
    }
}
