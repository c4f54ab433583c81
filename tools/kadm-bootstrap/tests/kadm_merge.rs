//! The operator's access merged into a kubeconfig that holds other clusters.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::indexing_slicing,
    reason = "a test may fail so"
)]

mod site;

use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use cluster_doc::Exit;
use kadm_bootstrap::KadmBootstrap;
use laws::sweep::{Table, sweep};
use serde_json::{Value, json};
use site::{PEOPLE, Site};

const OTHERS: &str = "# my clusters\napiVersion: v1\nkind: Config\npreferences: {colors: true}\ncurrent-context: home\nclusters:\n\
    - name: home\n  cluster: {server: https://10.9.9.9:6443, insecure-skip-tls-verify: true}\ncontexts:\n- name: home\n  \
    context: {cluster: home, user: kubernetes-admin, namespace: shop}\nusers:\n- name: kubernetes-admin\n  user: {token: mine}\n";

fn file(site: &Site) -> Value {
    serde_saphyr::from_str(&std::fs::read_to_string(site.path(PEOPLE)).unwrap()).unwrap()
}

/// What kubectl says of the file; `None` where there is no kubectl.
fn kubectl(site: &Site, args: &[&str]) -> Option<String> {
    let path = site.path(PEOPLE);
    let run = Command::new("kubectl").arg("--kubeconfig").arg(path).args(args).output();
    let Ok(output) = run else {
        eprintln!("skipped: there is no kubectl here");
        return None;
    };
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_context_is_added_and_nothing_else_changes() {
    let site = Site::new(1, 1).await;
    let document = site.document();
    std::fs::write(site.path(PEOPLE), OTHERS).unwrap();
    let merge = ["--merge-kubeconfig", PEOPLE];
    let plan = site.run(&[&["plan"], &merge[..]].concat(), &document).await;
    assert!(plan.out.contains(&format!("merge the context prod into {PEOPLE}")), "{}", plan.out);
    assert!(plan.out.contains("its comments are lost"), "{}", plan.out);
    site.done(&merge, &document).await;
    let (before, now): (Value, Value) = (serde_saphyr::from_str(OTHERS).unwrap(), file(&site));
    for list in ["clusters", "contexts", "users"] {
        assert_eq!(now[list][0], before[list][0]);
        assert_eq!(now[list].as_array().unwrap().len(), 2);
    }
    assert_eq!((&now["current-context"], &now["preferences"]), (&json!("home"), &before["preferences"]));
    assert_eq!(std::fs::metadata(site.path(PEOPLE)).unwrap().mode() & 0o777, 0o600);
    if let Some(contexts) = kubectl(&site, &["config", "get-contexts", "-o", "name"]) {
        assert_eq!(contexts, "home\nprod\n");
        assert_eq!(kubectl(&site, &["config", "current-context"]).unwrap(), "home\n");
        let nodes = kubectl(&site, &["--context", "prod", "get", "nodes", "-o", "name"]).unwrap();
        assert_eq!(nodes, "node/cp-1\nnode/w-1\n");
    }
    // Twice is once; without the flag nobody looks at the file.
    let text = std::fs::read(site.path(PEOPLE)).unwrap();
    let again = site.run(&[&["plan"], &merge[..]].concat(), &document).await;
    assert!(again.out.starts_with("kadm-bootstrap: nothing to do"), "{}", again.out);
    // Told to, it is the current one; a namespace that the operator set there stays.
    let set = String::from_utf8(text)
        .unwrap()
        .replace("    user: prod-admin", "    user: prod-admin\n    namespace: shop");
    std::fs::write(site.path(PEOPLE), &set).unwrap();
    site.done(&[&merge[..], &["--use-context"]].concat(), &document).await;
    let now = file(&site);
    assert_eq!(now["current-context"], "prod");
    assert_eq!(now["contexts"][1]["context"]["namespace"], "shop", "{set}");
    // Others must not read what opens a cluster.
    let mut open = std::fs::metadata(site.path(PEOPLE)).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut open, 0o644);
    std::fs::set_permissions(site.path(PEOPLE), open).unwrap();
    let check = site.run(&[&["check"], &merge[..]].concat(), &document).await;
    assert!(check.exit == Exit::Differs && check.out.contains("others can read it"), "{}", check.out);
    // It goes with the cluster, and takes nothing of the others along.
    let gone = site.run(&[&["destroy", "--yes"], &merge[..]].concat(), &document).await;
    assert_eq!(gone.exit, Exit::Done, "{}", gone.err);
    let now = file(&site);
    for list in ["clusters", "contexts", "users"] {
        assert_eq!(now[list], before[list]);
    }
    assert_eq!(now["current-context"], "");
    site.nothing_unknown();
}

/// What bears the cluster's name and is somebody else's is neither taken nor overwritten.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_else_named_so_stays() {
    let site = Site::new(1, 0).await;
    let document = site.document();
    assert_eq!(site.run(&[], &document).await.exit, Exit::Done);
    let clash = |part: &str| OTHERS.replace("name: home", part).replace("cluster: home", "cluster: prod");
    let user = OTHERS.replace("name: kubernetes-admin", "name: prod-admin");
    for text in [clash("name: prod"), user, "- no\n- kubeconfig\n".to_owned(), "a: [".to_owned()] {
        std::fs::write(site.path(PEOPLE), &text).unwrap();
        let ran = site.run(&["--merge-kubeconfig", PEOPLE], &document).await;
        assert_eq!(ran.exit, Exit::Precondition, "{text}\n{}", ran.err);
        assert_eq!(std::fs::read_to_string(site.path(PEOPLE)).unwrap(), text);
    }
    for (flags, words) in [
        (&["--merge-kubeconfig", "out/kubeconfig"][..], "holds this cluster alone"),
        (&["--use-context"][..], "--merge-kubeconfig"),
    ] {
        let ran = site.run(flags, &document).await;
        assert!(ran.exit == Exit::Usage && ran.err.contains(words), "{}", ran.err);
    }
    // A file that is not there yet is made; what is current is not decided for the operator.
    std::fs::remove_file(site.path(PEOPLE)).unwrap();
    let ran = site.run(&["--merge-kubeconfig", PEOPLE], &document).await;
    assert_eq!((ran.exit, &file(&site)["current-context"]), (Exit::Done, &json!("")), "{}", ran.err);
    site.nothing_unknown();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_step_with_a_merge_may_be_the_last() {
    let make = async || {
        let site = Site::new(1, 0).await;
        std::fs::write(site.path(PEOPLE), OTHERS).unwrap();
        std::fs::set_permissions(site.path(PEOPLE), std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .unwrap();
        let mut document = site.document();
        document["status"] = json!({});
        site.case(document)
    };
    let args = ["--merge-kubeconfig", PEOPLE, "--use-context"];
    let row = sweep::<KadmBootstrap>("merge", &args, 5, make).await.unwrap_or_else(|e| panic!("{e}"));
    eprintln!("{}", Table(std::slice::from_ref(&row)));
    assert_eq!((row.kills, row.broken.len()), (row.converged, 0), "{}", row.held().unwrap_err());
}
