//! kubeadm's configuration file: v1beta4 documents, read strictly.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde_json::{Map, Value};

use super::kubelet;

/// What `init` or `join` works with, with defaults filled in.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// The documents by kind.
    pub documents: Vec<Value>,
    /// The name of the node; empty: the host name.
    pub node_name: String,
    /// The address that the API server advertises.
    pub advertise: Option<Ipv4Addr>,
    /// The port of the API server.
    pub port: u16,
    /// `kubernetesVersion`, such as `v1.36.2`; empty: kubeadm's own.
    pub version: String,
    /// `controlPlaneEndpoint`.
    pub endpoint: String,
    /// `networking`.
    pub pod_subnet: String,
    /// `networking.serviceSubnet`.
    pub service_subnet: String,
    /// `networking.dnsDomain`.
    pub domain: String,
    /// `clusterName`.
    pub cluster: String,
    /// `imageRepository`.
    pub registry: String,
    /// `etcd.local.imageTag`.
    pub etcd_tag: Option<String>,
    /// `apiServer.certSANs`.
    pub sans: Vec<String>,
    /// `certificateKey`.
    pub certificate_key: Option<String>,
    /// The token of the first `bootstrapTokens` entry.
    pub token: Option<String>,
    /// Its `description`.
    pub token_description: String,
    /// Its `ttl` in seconds.
    pub token_seconds: Option<f64>,
    /// `nodeRegistration.criSocket`.
    pub cri_socket: String,
    /// `nodeRegistration.ignorePreflightErrors`.
    pub ignore: Vec<String>,
    /// `skipPhases`.
    pub skip: Vec<String>,
    /// `discovery` of a join.
    pub join: Option<Join>,
    /// `timeouts.discovery` in seconds.
    pub discovery_seconds: f64,
    /// The fields of KubeletConfiguration that were given.
    pub kubelet: Map<String, Value>,
    /// Fields given there that the kubelet of this version does not know, which kubeadm warns of and leaves out.
    pub unknown: Vec<String>,
    /// KubeProxyConfiguration as it was given; null without one.
    pub proxy: Value,
    /// `extraArgs` by component: names and values in their order.
    pub extra: BTreeMap<String, Vec<(String, String)>>,
}

/// What a join needs to find and trust its cluster.
#[derive(Clone, Debug, Default)]
pub struct Join {
    /// `host:port`.
    pub endpoint: String,
    /// The token.
    pub token: String,
    /// `sha256:...` of acceptable CA keys.
    pub hashes: Vec<String>,
    /// `unsafeSkipCAVerification`.
    pub unsafe_skip: bool,
    /// True for a control plane.
    pub control_plane: bool,
}

const GROUP: &str = "kubeadm.k8s.io/v1beta4";

fn known(kind: &str) -> Option<&'static [&'static str]> {
    Some(match kind {
        "InitConfiguration" => &[
            "bootstrapTokens",
            "dryRun",
            "nodeRegistration",
            "localAPIEndpoint",
            "certificateKey",
            "skipPhases",
            "patches",
            "timeouts",
        ],
        "ClusterConfiguration" => &[
            "etcd",
            "networking",
            "kubernetesVersion",
            "controlPlaneEndpoint",
            "apiServer",
            "controllerManager",
            "scheduler",
            "dns",
            "proxy",
            "certificatesDir",
            "imageRepository",
            "featureGates",
            "clusterName",
            "encryptionAlgorithm",
            "certificateValidityPeriod",
            "caCertificateValidityPeriod",
        ],
        "JoinConfiguration" => &[
            "dryRun",
            "nodeRegistration",
            "caCertPath",
            "discovery",
            "controlPlane",
            "skipPhases",
            "patches",
            "timeouts",
        ],
        "ResetConfiguration" => &[
            "certificatesDir",
            "cleanupTmpDir",
            "criSocket",
            "dryRun",
            "force",
            "ignorePreflightErrors",
            "skipPhases",
        ],
        "UpgradeConfiguration" => &["apply", "diff", "node", "plan", "timeouts"],
        _ => return None,
    })
}

/// Reads a file's text.
///
/// # Errors
/// kubeadm's text after `error: `.
pub fn read(text: &str) -> Result<Config, String> {
    let mut config = Config {
        port: 6443,
        service_subnet: "10.96.0.0/12".into(),
        domain: "cluster.local".into(),
        cluster: "kubernetes".into(),
        registry: "registry.k8s.io".into(),
        cri_socket: "unix:///var/run/containerd/containerd.sock".into(),
        discovery_seconds: 300.0,
        ..Config::default()
    };
    for part in text.split("\n---") {
        let part = part.strip_prefix("---").unwrap_or(part);
        if part.lines().all(|l| l.trim().is_empty() || l.trim_start().starts_with('#') || l.trim() == "---") {
            continue;
        }
        let document: Value =
            serde_saphyr::from_str(part).map_err(|e| format!("error converting YAML to JSON: yaml: {e}"))?;
        take(&mut config, &document)?;
        config.documents.push(document);
    }
    check(&config)?;
    Ok(config)
}

fn text(value: &Value) -> String {
    match value {
        Value::String(s) => s.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn list(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(text).collect()
}

fn seconds(duration: &str) -> Option<f64> {
    let mut total = 0.0;
    let mut number = String::new();
    let mut unit = String::new();
    let mut flush = |number: &mut String, unit: &mut String| -> Option<()> {
        let factor = match unit.as_str() {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 0.001,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * factor;
        number.clear();
        unit.clear();
        Some(())
    };
    for c in duration.chars() {
        if c.is_ascii_digit() || c == '.' {
            if !unit.is_empty() {
                flush(&mut number, &mut unit)?;
            }
            number.push(c);
        } else {
            unit.push(c);
        }
    }
    flush(&mut number, &mut unit)?;
    Some(total)
}

fn take(config: &mut Config, document: &Value) -> Result<(), String> {
    let (api, kind) = (text(&document["apiVersion"]), text(&document["kind"]));
    if ["KubeletConfiguration", "KubeProxyConfiguration"].contains(&kind.as_str()) {
        if kind == "KubeProxyConfiguration" {
            let mode = text(&document["mode"]);
            if !["", "iptables", "ipvs", "nftables"].contains(&mode.as_str()) {
                return Err(format!(
                    "KubeProxyConfiguration.Mode: Invalid value: \"{mode}\": must be iptables, ipvs, nftables or blank (blank means the best-available \
                     proxy [currently iptables])"
                ));
            }
            config.proxy = document.clone();
            return Ok(());
        }
        for (name, value) in document.as_object().into_iter().flatten() {
            match name.as_str() {
                "apiVersion" | "kind" => {}
                known if kubelet::FIELDS.contains(&known) => {
                    config.kubelet.insert(name.clone(), value.clone());
                }
                _ => config.unknown.push(name.clone()),
            }
        }
        return Ok(());
    }
    let Some(fields) = known(&kind).filter(|_| api == GROUP || api == "kubeadm.k8s.io/v1beta3") else {
        return Err(format!(
            "invalid configuration for GroupVersionKind {api}, Kind={kind}: kind and apiVersion is mandatory information that must be specified"
        ));
    };
    let odd = document
        .as_object()
        .into_iter()
        .flatten()
        .find(|(k, _)| !["apiVersion", "kind"].contains(&k.as_str()) && !fields.contains(&k.as_str()));
    if let Some((key, _)) = odd {
        let version = api.rsplit('/').next().unwrap_or_default();
        return Err(format!(
            "error unmarshaling configuration schema.GroupVersionKind{{Group:\"kubeadm.k8s.io\", Version:\"{version}\", Kind:\"{kind}\"}}: \
             strict decoding error: unknown field \"{key}\""
        ));
    }
    let registration = &document["nodeRegistration"];
    if registration.is_object() {
        config.node_name = text(&registration["name"]);
        config.ignore = list(&registration["ignorePreflightErrors"]);
        if let Some(socket) = registration["criSocket"].as_str() {
            config.cri_socket = socket.into();
        }
    }
    let endpoint = if kind == "JoinConfiguration" {
        &document["controlPlane"]["localAPIEndpoint"]
    } else {
        &document["localAPIEndpoint"]
    };
    if let Some(address) = endpoint["advertiseAddress"].as_str() {
        let parsed = address.parse().map_err(|_| {
            format!("localAPIEndpoint: Invalid value: \"{address}\": ip address is not valid")
        })?;
        config.advertise = Some(parsed);
    }
    if let Some(port) = endpoint["bindPort"].as_u64().and_then(|p| u16::try_from(p).ok()).filter(|p| *p > 0) {
        config.port = port;
    }
    config.skip.extend(list(&document["skipPhases"]));
    if let Some(limit) = document["timeouts"]["discovery"].as_str() {
        config.discovery_seconds = seconds(limit)
            .ok_or_else(|| format!("timeouts.discovery: time: invalid duration \"{limit}\""))?;
    }
    match kind.as_str() {
        "InitConfiguration" => {
            config.certificate_key = document["certificateKey"].as_str().map(String::from);
            let first = &document["bootstrapTokens"][0];
            config.token = first["token"].as_str().map(String::from);
            config.token_description = text(&first["description"]);
            config.token_seconds = first["ttl"].as_str().and_then(seconds);
        }
        "ClusterConfiguration" => cluster(config, document),
        "JoinConfiguration" => {
            let discovery = &document["discovery"];
            let bootstrap = &discovery["bootstrapToken"];
            let control_plane = &document["controlPlane"];
            config.certificate_key = control_plane["certificateKey"].as_str().map(String::from);
            let token =
                bootstrap["token"].as_str().or(discovery["tlsBootstrapToken"].as_str()).unwrap_or_default();
            config.join = Some(Join {
                endpoint: text(&bootstrap["apiServerEndpoint"]),
                token: token.into(),
                hashes: list(&bootstrap["caCertHashes"]),
                unsafe_skip: bootstrap["unsafeSkipCAVerification"] == true,
                control_plane: control_plane.is_object(),
            });
        }
        _ => {}
    }
    Ok(())
}

fn cluster(config: &mut Config, document: &Value) {
    config.version = text(&document["kubernetesVersion"]);
    config.endpoint = text(&document["controlPlaneEndpoint"]);
    let network = &document["networking"];
    config.pod_subnet = text(&network["podSubnet"]);
    let or = |slot: &mut String, value: &Value| {
        if let Some(given) = value.as_str() {
            *slot = given.into();
        }
    };
    or(&mut config.service_subnet, &network["serviceSubnet"]);
    or(&mut config.domain, &network["dnsDomain"]);
    or(&mut config.cluster, &document["clusterName"]);
    or(&mut config.registry, &document["imageRepository"]);
    config.sans = list(&document["apiServer"]["certSANs"]);
    config.etcd_tag = document["etcd"]["local"]["imageTag"].as_str().map(String::from);
    for (component, at) in [
        ("kube-apiserver", &document["apiServer"]),
        ("kube-controller-manager", &document["controllerManager"]),
        ("kube-scheduler", &document["scheduler"]),
        ("etcd", &document["etcd"]["local"]),
    ] {
        let args = at["extraArgs"].as_array().into_iter().flatten();
        let args: Vec<_> = args.map(|a| (text(&a["name"]), text(&a["value"]))).collect();
        config.extra.insert(component.into(), args);
    }
}

/// The network of a CIDR, or nothing.
pub fn cidr(text: &str) -> Option<(Ipv4Addr, u8)> {
    let (address, prefix) = text.split_once('/')?;
    let prefix: u8 = prefix.parse().ok().filter(|p| *p <= 32)?;
    Some((address.parse().ok()?, prefix))
}

fn token_shape(token: &str) -> bool {
    let lower =
        |s: &str, n: usize| s.len() == n && s.chars().all(|c| c.is_ascii_digit() || c.is_ascii_lowercase());
    token.split_once('.').is_some_and(|(id, secret)| lower(id, 6) && lower(secret, 16))
}

fn check(config: &Config) -> Result<(), String> {
    for (field, subnet) in
        [("networking.podSubnet", &config.pod_subnet), ("networking.serviceSubnet", &config.service_subnet)]
    {
        if !subnet.is_empty() && subnet.split(',').any(|s| cidr(s).is_none()) {
            return Err(format!("{field}: Invalid value: \"{subnet}\": couldn't parse subnet"));
        }
    }
    let version = config.version.trim_start_matches('v');
    if !version.is_empty() && version.split('.').count() != 3 {
        return Err(format!("could not parse the version \"{}\"", config.version));
    }
    if let Some(key) = &config.certificate_key {
        let size = key.len() / 2;
        if size != 32 || !key.chars().all(|c| c.is_ascii_hexdigit()) {
            let field = if config.join.is_some() { "controlPlane.certificateKey" } else { "certificateKey" };
            return Err(format!(
                "{field}: Invalid value: \"{key}\": invalid certificate key size {size}, the key must be an AES key of size 32"
            ));
        }
    }
    if let Some(token) = &config.token
        && !token_shape(token)
    {
        return Err(format!(
            "bootstrapTokens[0].token: Invalid value: \"{token}\": the bootstrap token is invalid"
        ));
    }
    let Some(join) = &config.join else { return Ok(()) };
    if !token_shape(&join.token) {
        let token = &join.token;
        return Err(format!(
            "[discovery.bootstrapToken.token: Invalid value: \"{token}\": the bootstrap token is invalid, \
             discovery.tlsBootstrapToken: Invalid value: \"{token}\": the bootstrap token is invalid]"
        ));
    }
    if join.hashes.is_empty() && !join.unsafe_skip {
        return Err("discovery.bootstrapToken.caCertHashes: Invalid value: \"\": using token-based discovery without caCertHashes can be \
                    unsafe. Set unsafeSkipCAVerification as true in your kubeadm config file or pass --discovery-token-unsafe-skip-ca-verification \
                    flag to continue"
            .into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_read_strictly() {
        let good = "apiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\nlocalAPIEndpoint:\n  advertiseAddress: 10.0.0.1\n---\n\
                    apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nkubernetesVersion: v1.36.2\ncontrolPlaneEndpoint: 10.0.0.9:6443\n";
        let config = read(good).unwrap();
        assert_eq!(
            (config.endpoint.as_str(), config.advertise),
            ("10.0.0.9:6443", Some(Ipv4Addr::new(10, 0, 0, 1)))
        );
        let bad = read(&good.replace("kubernetesVersion", "kubernetesVersions")).unwrap_err();
        assert!(bad.ends_with("strict decoding error: unknown field \"kubernetesVersions\""), "{bad}");
        assert_eq!(seconds("1m30s"), Some(90.0));
    }
}
