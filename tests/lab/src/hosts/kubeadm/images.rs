//! kubeadm's version and images.

use serde_json::json;

use super::{Flags, Words};
use crate::hosts::Machine;
use crate::hosts::programs::{Ctx, Output};

/// The version of the installed kubeadm, such as `v1.36.2`.
pub fn own_version(machine: &Machine) -> String {
    format!("v{}", machine.kube.kubeadm_version.as_deref().unwrap_or("0.0.0"))
}

/// `kubeadm version`.
pub fn version(ctx: &mut Ctx, args: &[String]) -> Output {
    let version = own_version(&ctx.machine());
    let minor = version.split('.').nth(1).unwrap_or_default().to_string();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["-o", "short"] | ["-o=short"] | ["--output=short"] | ["--output", "short"] => {
            Output::ok(format!("{version}\n"))
        }
        ["-o", "json"] | ["-o=json"] | ["--output=json"] | ["--output", "json"] => {
            let shown = json!({"clientVersion": {
                "major": "1", "minor": minor, "gitVersion": version, "gitCommit": "0000000000000000000000000000000000000000",
                "gitTreeState": "clean", "buildDate": "2026-07-01T00:00:00Z", "goVersion": "go1.27.3", "compiler": "gc", "platform": "linux/amd64",
            }});
            Output::ok(format!("{}\n", serde_json::to_string_pretty(&shown).unwrap_or_default()))
        }
        _ => ctx.unknown("kubeadm version", args),
    }
}

/// The images of a version.
pub fn of(version: &str, registry: &str) -> Vec<String> {
    let core = ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy"];
    let mut all: Vec<String> = core.iter().map(|name| format!("{registry}/{name}:{version}")).collect();
    let coredns = if registry == "registry.k8s.io" { "coredns/coredns" } else { "coredns" };
    all.push(format!("{registry}/{coredns}:v1.14.2"));
    all.push(format!("{registry}/pause:3.10.2"));
    all.push(format!("{registry}/etcd:3.6.8-0"));
    all
}

fn wanted(ctx: &Ctx, args: &[String]) -> Result<(Vec<String>, bool), String> {
    let flags =
        Flags::parse(args, &["config", "kubernetes-version", "image-repository", "output", "cri-socket"])?;
    let machine = ctx.machine();
    let mut version = own_version(&machine);
    let mut registry = "registry.k8s.io".to_string();
    if let Some(path) = flags.get("config") {
        let config = super::init::load(&machine, path)?;
        if !config.version.is_empty() {
            version = format!("v{}", config.version.trim_start_matches('v'));
        }
        registry = config.registry;
    }
    if let Some(given) = flags.get("kubernetes-version") {
        version = format!("v{}", given.trim_start_matches('v'));
    }
    if let Some(given) = flags.get("image-repository") {
        registry = given.into();
    }
    Ok((of(&version, &registry), flags.get("output") == Some("json")))
}

/// `kubeadm config images list`.
pub fn list(ctx: &mut Ctx, args: &[String]) -> Output {
    match wanted(ctx, args) {
        Ok((images, true)) => {
            let shown =
                json!({"kind": "Images", "apiVersion": "output.kubeadm.k8s.io/v1alpha3", "images": images});
            Output::ok(format!(
                "{}\n",
                serde_json::to_string_pretty(&shown).unwrap_or_default().replace("  ", "    ")
            ))
        }
        Ok((images, false)) => Output::ok(images.iter().map(|i| format!("{i}\n")).collect::<String>()),
        Err(e) => Words::default().end(Err(e)),
    }
}

/// `kubeadm config images pull`.
pub async fn pull(ctx: &mut Ctx, args: &[String]) -> Output {
    let images = match wanted(ctx, args) {
        Ok((images, _)) => images,
        Err(e) => return Words::default().end(Err(e)),
    };
    let mut words = Words::default();
    if !ctx.machine().services.active("containerd") {
        let text = super::preflight::no_runtime("unix:///var/run/containerd/containerd.sock");
        return words.end(Err(format!(
            "failed to pull image \"{}\": {text}",
            images.first().cloned().unwrap_or_default()
        )));
    }
    ctx.changes();
    for image in images {
        fetch(ctx, &image).await;
        words.out(format!("[config/images] Pulled {image}"));
    }
    words.end(Ok(()))
}

/// Pulls one image unless it is there.
pub async fn fetch(ctx: &mut Ctx, image: &str) {
    if ctx.machine().kube.images.contains(image) {
        return;
    }
    let clock = ctx.hosts.world().clock;
    clock.wait(std::time::Duration::from_secs(3)).await;
    ctx.machine().kube.images.insert(image.into());
}
