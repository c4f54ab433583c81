//! The publisher's manifest without the operator, adapted: on the parsed objects, never on text.
//!
//! Each place that is changed must be there, or the run ends before anything is sent: another release may have moved it.

use addon::{Addon, ObjectId};
use serde_json::{Value, json};
use stage::Failure;

use crate::rules::Autodetect;
use crate::settings::Settings;

const NAMESPACE: &str = "kube-system";

/// Writes the settings into the objects.
///
/// # Errors
/// Exit 4 when a place is missing.
pub(crate) fn adapt(addon: &mut Addon, settings: &Settings) -> Result<(), Failure> {
    let config = ObjectId::new("v1", "ConfigMap", Some(NAMESPACE), "calico-config");
    let node = ObjectId::new("apps/v1", "DaemonSet", Some(NAMESPACE), "calico-node");
    change(addon, &config, |map| {
        let mtu = settings.mtu.unwrap_or(0).to_string();
        *map.pointer_mut("/data/veth_mtu").ok_or("it has no veth_mtu")? = mtu.into();
        Ok(())
    })?;
    let variables = variables(settings);
    change(addon, &node, |set| {
        let containers = set.pointer_mut("/spec/template/spec/containers").and_then(Value::as_array_mut);
        let env = containers
            .into_iter()
            .flatten()
            .find(|one| one["name"] == "calico-node")
            .and_then(|one| one.get_mut("env"))
            .and_then(Value::as_array_mut)
            .ok_or("it has no container calico-node with variables")?;
        for known in ["CALICO_IPV4POOL_IPIP", "CALICO_IPV4POOL_VXLAN", "IP"] {
            if !env.iter().any(|one| one["name"] == known) {
                return Err("it does not set the pool's encapsulation where it is looked for");
            }
        }
        for (name, value) in &variables {
            match env.iter_mut().find(|one| one["name"] == *name) {
                Some(one) => *one = json!({"name": name, "value": value}),
                None => env.push(json!({"name": name, "value": value})),
            }
        }
        Ok(())
    })
}

/// A pool's ipipMode and vxlanMode for an encapsulation in the operator's word.
pub(crate) fn modes(encapsulation: &str) -> (&'static str, &'static str) {
    match encapsulation {
        "IPIP" => ("Always", "Never"),
        "IPIPCrossSubnet" => ("CrossSubnet", "Never"),
        "VXLAN" => ("Never", "Always"),
        "VXLANCrossSubnet" => ("Never", "CrossSubnet"),
        _ => ("Never", "Never"),
    }
}

/// calico-node's variables (docs.tigera.io, reference, configuring calico/node); those of the pool count at its first start alone.
fn variables(settings: &Settings) -> Vec<(&'static str, String)> {
    let (ipip, vxlan) = modes(settings.encapsulation);
    let method = match &settings.autodetect {
        Autodetect::NodeIp => "kubernetes-internal-ip".to_owned(),
        Autodetect::Interface(value) => format!("interface={value}"),
        Autodetect::SkipInterface(value) => format!("skip-interface={value}"),
        Autodetect::CanReach(value) => format!("can-reach={value}"),
        Autodetect::Cidr(value) => format!("cidr={value}"),
    };
    let nftables = if settings.dataplane == "Nftables" { "Enabled" } else { "Disabled" };
    vec![
        ("CALICO_IPV4POOL_CIDR", settings.pod_cidr.clone()),
        ("CALICO_IPV4POOL_BLOCK_SIZE", settings.block_size.to_string()),
        ("CALICO_IPV4POOL_IPIP", ipip.to_owned()),
        ("CALICO_IPV4POOL_VXLAN", vxlan.to_owned()),
        ("IP_AUTODETECTION_METHOD", method),
        ("FELIX_NFTABLESMODE", nftables.to_owned()),
        ("FELIX_PROMETHEUSMETRICSENABLED", "true".to_owned()),
    ]
}

fn change(
    addon: &mut Addon,
    id: &ObjectId,
    with: impl FnOnce(&mut Value) -> Result<(), &'static str>,
) -> Result<(), Failure> {
    let found = addon.value_mut(id).ok_or("it is not there").and_then(with);
    found.map_err(|why| {
        Failure::precondition(format!("cannot adapt Calico's manifest: {id}"))
            .because(why)
            .hint("take the pinned manifest, or \"install\": \"operator\", which needs no change of it")
    })
}
