//! kubeadm's configuration of an init and of a join, rendered.

use std::collections::BTreeMap;

use render::Template;
use serde::Serialize;
use serde_json::Value;
use stage::Failure;

use crate::files::wrong;
use crate::node::{Node, parse_taint};
use crate::token::DESCRIPTION;
use crate::want::Want;

const INIT: &str = include_str!("../templates/init.yaml.j2");
const JOIN: &str = include_str!("../templates/join.yaml.j2");

/// What etcd is there when a control plane is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Etcd {
    /// None: it begins with this member.
    New,
    /// One from a snapshot. It must never begin a cluster of its own when its disk is lost later.
    Restored,
}

#[derive(Serialize)]
struct Init<'a> {
    restored: bool,
    token: Option<&'a str>,
    description: &'a str,
    certificate_key: Option<&'a str>,
    address: String,
    port: u16,
    name: &'a str,
    ignore: &'a [String],
    taints: Vec<Value>,
    cluster: &'a str,
    version: String,
    endpoint: &'a str,
    registry: &'a str,
    sans: &'a [String],
    pod_cidr: &'a str,
    service_cidr: &'a str,
    domain: &'a str,
    kubelet: &'a BTreeMap<String, Value>,
    proxy_mode: &'a str,
}

/// kubeadm's configuration of an init, or of an upload of certificates.
///
/// # Errors
/// A template that does not render is a fault of ours.
pub fn init(
    want: &Want,
    node: &Node,
    token: Option<&str>,
    certificate_key: Option<&str>,
    etcd: Etcd,
) -> Result<String, Failure> {
    let mut ignore = want.ignore.clone();
    if etcd == Etcd::Restored {
        ignore.push("DirAvailable--var-lib-etcd".to_owned());
    }
    let data = Init {
        restored: etcd == Etcd::Restored,
        token,
        description: DESCRIPTION,
        certificate_key,
        address: node.address.to_string(),
        port: want.api_port,
        name: &node.name,
        ignore: &ignore,
        taints: taints(node),
        cluster: &want.cluster,
        version: want.version.tag(),
        endpoint: &want.endpoint,
        registry: &want.registry,
        sans: &want.sans,
        pod_cidr: &want.pod_cidr,
        service_cidr: &want.service_cidr,
        domain: &want.domain,
        kubelet: &want.kubelet,
        proxy_mode: want.proxy_mode,
    };
    Template::new("init.yaml", INIT).render(&data).map_err(|e| wrong(&e))
}

#[derive(Serialize)]
struct Join<'a> {
    endpoint: &'a str,
    token: &'a str,
    ca_hash: &'a str,
    certificate_key: Option<&'a str>,
    address: String,
    port: u16,
    name: &'a str,
    ignore: &'a [String],
    taints: Vec<Value>,
}

/// kubeadm's configuration of a join; with a certificate key it is that of a control plane.
///
/// # Errors
/// A template that does not render is a fault of ours.
pub fn join(
    want: &Want,
    node: &Node,
    token: &str,
    ca_hash: &str,
    certificate_key: Option<&str>,
) -> Result<String, Failure> {
    let data = Join {
        endpoint: &want.endpoint,
        token,
        ca_hash,
        certificate_key,
        address: node.address.to_string(),
        port: want.api_port,
        name: &node.name,
        ignore: &want.ignore,
        taints: taints(node),
    };
    Template::new("join.yaml", JOIN).render(&data).map_err(|e| wrong(&e))
}

/// Taints as the API has them; given at registration, so that no pod slips in before.
fn taints(node: &Node) -> Vec<Value> {
    node.taints.iter().filter_map(|t| parse_taint(t)).collect()
}
