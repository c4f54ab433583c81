//! Fields of the kubelets' configuration that the operator sets.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::Value;

use crate::Refusals;
use crate::read::{FromDoc, Node};

/// Fields of KubeletConfiguration (kubelet.config.k8s.io/v1beta1) by name, as every kubelet of the cluster gets them.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct KubeletFields(BTreeMap<String, Value>);

/// The fields that are not the operator's, and what decides them.
const TAKEN: [(&str, &str); 16] = [
    ("apiVersion", "it is kubelet.config.k8s.io/v1beta1"),
    ("authentication", "kubeadm sets it: the cluster's authority and its API servers, and nobody else"),
    ("authorization", "kubeadm sets it: the API servers decide"),
    ("cgroupDriver", "it is systemd, as containerd is set up"),
    ("clusterDomain", "write spec.kubernetes.dnsDomain"),
    ("containerRuntimeEndpoint", "it is containerd's socket"),
    ("healthzBindAddress", "kubeadm asks the kubelet there"),
    ("healthzPort", "kubeadm asks the kubelet there"),
    ("kind", "it is KubeletConfiguration"),
    ("port", "the API servers reach the kubelets at 10250"),
    ("rotateCertificates", "it is true: client certificates are renewed before they end"),
    ("serverTLSBootstrap", "it is true: the cluster certifies what its kubelets serve with"),
    ("staticPodURLHeader", "what it holds may be a secret, which no document holds"),
    ("staticPodPath", "kubeadm keeps the control plane's manifests there"),
    ("tlsCertFile", "the cluster certifies what its kubelets serve with"),
    ("tlsPrivateKeyFile", "the cluster certifies what its kubelets serve with"),
];

impl KubeletFields {
    /// The fields by name.
    pub fn fields(&self) -> &BTreeMap<String, Value> {
        &self.0
    }
}

/// A name as Go's JSON tags of the kubelet have them: `maxPods`, `kubeAPIQPS`.
fn is_field(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(|c| c.is_ascii_alphanumeric())
}

impl FromDoc for KubeletFields {
    fn from_doc(node: &Node<'_>, wrong: &mut Refusals) -> Option<Self> {
        let Value::Object(map) = node.value else {
            return node
                .refuse(wrong, format!("{} is no object; write {{ \"maxPods\": 200 }}", node.shown()));
        };
        let mut fields = BTreeMap::new();
        let mut whole = true;
        for (key, value) in map.iter().filter(|(key, _)| !key.starts_with("x-")) {
            let mut refuse = |message: String| {
                wrong.add(node.at.key(key), message);
                whole = false;
            };
            if let Some((_, why)) = TAKEN.iter().find(|(taken, _)| taken == key) {
                refuse(format!("is not set here; {why}"));
            } else if !is_field(key) {
                refuse(
                    "is no name of a field; write it as in KubeletConfiguration, such as maxPods".to_owned(),
                );
            } else if value.is_null() {
                refuse("is null; leave the field out to have the kubelet's own default".to_owned());
            } else {
                fields.insert(key.clone(), value.clone());
            }
        }
        whole.then_some(KubeletFields(fields))
    }

    fn missing() -> Option<Self> {
        Some(KubeletFields::default())
    }
}

impl JsonSchema for KubeletFields {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "KubeletFields".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let taken: Vec<&str> = TAKEN.iter().map(|(name, _)| *name).collect();
        schemars::json_schema!({
            "type": "object",
            "propertyNames": { "not": { "enum": taken } },
            "examples": [{ "maxPods": 200, "imageGCHighThresholdPercent": 80 }],
        })
    }
}
