//! The phases of an init that make certificates, keys and kubeconfigs.

use super::Words;
use super::config::{self, Config};
use super::init::endpoint;
use super::pki::{self, Subject};
use crate::hosts::Machine;

/// Who the API server's certificate is for, and its names and addresses in the order of kubeadm's words.
pub fn api_subject(config: &Config, name: &str, address: &str) -> (Subject, Vec<String>, Vec<String>) {
    let service = config::cidr(&config.service_subnet)
        .map(|(a, _)| std::net::Ipv4Addr::from(u32::from(a) + 1).to_string())
        .unwrap_or_default();
    let mut names = vec![
        name.to_string(),
        "kubernetes".into(),
        "kubernetes.default".into(),
        "kubernetes.default.svc".into(),
    ];
    names.push(format!("kubernetes.default.svc.{}", config.domain));
    let mut addresses = vec![service, address.to_string()];
    let host = endpoint(config)
        .trim_start_matches("https://")
        .rsplit_once(':')
        .map(|(h, _)| h.to_string())
        .unwrap_or_default();
    for extra in std::iter::once(&host).chain(&config.sans) {
        let list = if extra.parse::<std::net::IpAddr>().is_ok() { &mut addresses } else { &mut names };
        if !list.contains(extra) {
            list.push(extra.clone());
        }
    }
    names.sort();
    let subject = Subject {
        name: "kube-apiserver".into(),
        sans: [names.clone(), addresses.clone()].concat(),
        server: true,
        ..Subject::default()
    };
    (subject, names, addresses)
}

/// Makes the certificates that are not there, CAs too.
pub fn certificates(
    machine: &mut Machine,
    config: &Config,
    name: &str,
    address: &str,
    words: &mut Words,
) -> Result<(), String> {
    let say = |words: &mut Words, made: bool, what: &str| {
        words.out(match (made, what) {
            (true, "sa") => "[certs] Generating \"sa\" key and public key".to_string(),
            (true, what) if what.ends_with("ca") && what.contains('/') => {
                format!("[certs] Generating \"{what}\" certificate and key")
            }
            (true, what) => format!("[certs] Generating \"{what}\" certificate and key"),
            (false, "sa") => "[certs] Using the existing \"sa\" key".to_string(),
            (false, what) => format!("[certs] Using existing {what} certificate authority"),
        });
    };
    let (api, names, addresses) = api_subject(config, name, address);
    let made = pki::ca(machine, "ca")?;
    say(words, made, "ca");
    issue(machine, words, "apiserver", "ca", &api)?;
    words.out(format!(
        "[certs] apiserver serving cert is signed for DNS names [{}] and IPs [{}]",
        names.join(" "),
        addresses.join(" ")
    ));
    let client = Subject::client("kube-apiserver-kubelet-client", "kubeadm:cluster-admins");
    issue(machine, words, "apiserver-kubelet-client", "ca", &client)?;
    let made = pki::ca(machine, "front-proxy-ca")?;
    say(words, made, "front-proxy-ca");
    issue(
        machine,
        words,
        "front-proxy-client",
        "front-proxy-ca",
        &Subject::client("front-proxy-client", ""),
    )?;
    let made = pki::ca(machine, "etcd/ca")?;
    say(words, made, "etcd/ca");
    let mut local = vec![name.to_string(), "localhost".into()];
    local.sort();
    let sans = [local.clone(), vec![address.into(), "127.0.0.1".into(), "::1".into()]].concat();
    for part in ["server", "peer"] {
        let subject = Subject {
            name: name.into(),
            sans: sans.clone(),
            server: true,
            client: true,
            ..Subject::default()
        };
        issue(machine, words, &format!("etcd/{part}"), "etcd/ca", &subject)?;
        words.out(format!(
            "[certs] etcd/{part} serving cert is signed for DNS names [{}] and IPs [{address} 127.0.0.1 ::1]",
            local.join(" ")
        ));
    }
    let health = Subject::client("kube-etcd-healthcheck-client", "");
    issue(machine, words, "etcd/healthcheck-client", "etcd/ca", &health)?;
    let api_etcd = Subject::client("kube-apiserver-etcd-client", "");
    issue(machine, words, "apiserver-etcd-client", "etcd/ca", &api_etcd)?;
    let made = pki::service_account(machine)?;
    if !made {
        words.out(format!("[certs] Valid certificates and keys now exist in \"{}\"", pki::DIR));
    }
    say(words, made, "sa");
    Ok(())
}

/// A certificate of this CA's, unless it is there, and kubeadm's words about it.
fn issue(
    machine: &mut Machine,
    words: &mut Words,
    what: &str,
    ca: &str,
    subject: &Subject,
) -> Result<(), String> {
    if pki::leaf(machine, what, ca, subject)? {
        words.out(format!("[certs] Generating \"{what}\" certificate and key"));
    } else {
        words.out(format!("[certs] Using existing {what} certificate and key on disk"));
    }
    Ok(())
}

/// The kubeconfig files of a control plane.
///
/// # Errors
/// Why one cannot be made.
pub fn kubeconfigs(
    machine: &mut Machine,
    config: &Config,
    name: &str,
    address: &str,
    words: &mut Words,
) -> Result<(), String> {
    words.out("[kubeconfig] Using kubeconfig folder \"/etc/kubernetes\"");
    let server = endpoint(config);
    let local = format!("https://{address}:{}", config.port);
    let node = format!("system:node:{name}");
    let all = [
        ("admin.conf", &server, Subject::client("kubernetes-admin", "kubeadm:cluster-admins")),
        ("super-admin.conf", &server, Subject::client("kubernetes-super-admin", "system:masters")),
        ("kubelet.conf", &server, Subject::client(&node, "system:nodes")),
        ("controller-manager.conf", &local, Subject::client("system:kube-controller-manager", "")),
        ("scheduler.conf", &local, Subject::client("system:kube-scheduler", "")),
    ];
    for (file, server, subject) in all {
        words.out(format!("[kubeconfig] Writing \"{file}\" kubeconfig file"));
        pki::kubeconfig(machine, file, &config.cluster, server, &subject)?;
    }
    Ok(())
}
