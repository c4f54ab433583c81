//! Apply, observe, prune and wait against an API server: the lab's, and a real one where `KUBEBUILDER_ASSETS` names its programs.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test may")]

mod server;

use kube_apply::{
    Class, Cluster, Error, ManifestSet, Object, ObjectId, Outcome, Progress, Prune, Wait, What,
    refuse_blocked,
};
use lab::{Action, Fault, Window};
use serde_json::{Value, json};
use server::{Server, servers};
use std::sync::Mutex;
use std::time::Duration;

const MANAGER: &str = "kubeline-test";

const SET: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: demo}
data: {a: \"1\", b: \"2\"}
---
apiVersion: example.org/v1
kind: Thing
metadata: {name: first, namespace: demo}
spec: {n: 1}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.example.org}
spec:
  group: example.org
  scope: Namespaced
  names: {kind: Thing, listKind: ThingList, plural: things, singular: thing}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties: {spec: {type: object, properties: {n: {type: integer}}}}
---
apiVersion: v1
kind: Namespace
metadata: {name: demo}
";

fn set_of(name: &str, text: &str) -> ManifestSet {
    let mut set = ManifestSet::new(name);
    set.add_yaml("test", text).unwrap();
    set
}

async fn cluster(server: &Server) -> Cluster {
    Cluster::connect(&server.kubeconfig, MANAGER).await.unwrap().patience(Duration::from_secs(10))
}

fn quiet(_: Progress<'_>) {}

fn namespace(name: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n")
}

fn config_map(namespace: &str, name: &str, data: Value) -> Object {
    let metadata = json!({"name": name, "namespace": namespace});
    Object::new(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})).unwrap()
}

/// The resourceVersions of a set's objects: equal before and after means that nothing was written.
async fn versions(cluster: &Cluster, set: &ManifestSet) -> Vec<(ObjectId, String)> {
    let mut found = Vec::new();
    for id in set.objects().iter().map(Object::id).chain([set.parent_id()]) {
        let live =
            cluster.get(&id.api_version, &id.kind, id.namespace.as_deref(), &id.name).await.unwrap().unwrap();
        found.push((id, live["metadata"]["resourceVersion"].as_str().unwrap().to_owned()));
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_is_observed_applied_and_left_alone() {
    for server in servers().await {
        let cluster = cluster(&server).await;
        let version = cluster.version().await.unwrap();
        assert!(version.starts_with("v1."), "{version}");
        let set = set_of("kubeline-test", SET);

        let before = cluster.observe(&set).await.unwrap();
        let shown: Vec<String> = before.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "create v1 ConfigMap kube-system/kubeline-test",
                "create v1 Namespace demo",
                "create apiextensions.k8s.io/v1 CustomResourceDefinition things.example.org",
                "create v1 ConfigMap demo/settings (not tried: the namespace demo does not exist yet)",
                "create example.org/v1 Thing demo/first (not tried: the cluster has no kind Thing in example.org/v1 yet)",
            ],
            "{}",
            server.name
        );
        refuse_blocked(&before).unwrap();
        assert!(
            cluster.get("v1", "Namespace", None, "demo").await.unwrap().is_none(),
            "observing changes nothing"
        );

        let done = cluster.apply(&set, quiet).await.unwrap();
        assert!(done.iter().all(|(_, outcome)| *outcome == Outcome::Created), "{done:?}");
        assert_eq!(done.len(), 5);
        let after = cluster.observe(&set).await.unwrap();
        assert!(after.iter().all(|difference| difference.is_same()), "{after:#?}");

        let versions_before = versions(&cluster, &set).await;
        let done = cluster.apply(&set, quiet).await.unwrap();
        assert!(done.iter().all(|(_, outcome)| *outcome == Outcome::Same), "{done:?}");
        assert_eq!(versions(&cluster, &set).await, versions_before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_shown_by_field_and_made() {
    for server in servers().await {
        let cluster = cluster(&server).await;
        let mut set = set_of("kubeline-change", &namespace("change"));
        set.add(config_map("change", "c", json!({"a": "1", "b": "2"}))).unwrap();
        cluster.apply(&set, quiet).await.unwrap();

        let mut new = set_of("kubeline-change", &namespace("change"));
        new.add(config_map("change", "c", json!({"a": "3"}))).unwrap();
        let found = cluster.observe(&new).await.unwrap();
        let changed: Vec<String> =
            found.iter().filter(|one| !one.is_same()).map(ToString::to_string).collect();
        assert_eq!(changed, ["change v1 ConfigMap change/c:\n  .data.a: \"1\" -> \"3\"\n  .data.b: - \"2\""]);

        let done = cluster.apply(&new, quiet).await.unwrap();
        let changed: Vec<_> = done.iter().filter(|(_, outcome)| *outcome != Outcome::Same).collect();
        assert_eq!(changed, [&(ObjectId::new("v1", "ConfigMap", Some("change"), "c"), Outcome::Changed)]);
        let live = cluster.get("v1", "ConfigMap", Some("change"), "c").await.unwrap().unwrap();
        assert_eq!(live["data"], json!({"a": "3"}));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_own_is_refused_by_name_unless_forced() {
    for server in servers().await {
        let mine = cluster(&server).await;
        let other = Cluster::connect(&server.kubeconfig, "somebody-else").await.unwrap();
        let wanted = config_map("default", "owned", json!({"k": "mine"}));
        other.apply_object(&config_map("default", "owned", json!({"k": "theirs"}))).await.unwrap();

        let error = mine.apply_object(&wanted).await.unwrap_err();
        assert_eq!(error.class(), Class::Precondition);
        assert_eq!(
            error.to_string(),
            "cannot apply v1 ConfigMap default/owned: .data.k belongs to somebody-else"
        );
        let mut set = ManifestSet::new("kubeline-owned");
        set.add(wanted.clone()).unwrap();
        let found = mine.observe(&set).await.unwrap();
        assert!(
            matches!(&found[1].what, What::Conflict { fields } if fields[0].1 == "somebody-else"),
            "{found:?}"
        );
        assert!(found[1].theirs && !found[0].theirs, "nobody of us has applied it: {found:?}");
        assert!(matches!(refuse_blocked(&found), Err(Error::Conflict { .. })));
        assert!(matches!(mine.apply(&set, quiet).await, Err(Error::Conflict { .. })));

        let forced = mine.clone().force_conflicts();
        let found = forced.observe(&set).await.unwrap();
        let What::Change { fields } = &found[1].what else { panic!("{found:?}") };
        let data = fields.iter().find(|field| field.path == ".data.k").unwrap();
        assert_eq!(data.to_string(), r#".data.k: "theirs" -> "mine" (set by somebody-else)"#);
        forced.apply_object(&wanted).await.unwrap();
        let live = mine.get("v1", "ConfigMap", Some("default"), "owned").await.unwrap().unwrap();
        assert_eq!(live["data"]["k"], "mine");
        assert!(!mine.observe(&set).await.unwrap()[1].theirs, "taken over is ours");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_permanent_and_name_the_object() {
    for server in servers().await {
        let cluster = cluster(&server).await;
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "default"},
            "spec": {"type": "NodePort", "portz": 1, "ports": [{"port": 80}]}});
        let begun = std::time::Instant::now();
        let error = cluster.apply_object(&Object::new(service).unwrap()).await.unwrap_err();
        assert_eq!(error.class(), Class::Precondition, "{error}");
        assert!(
            error.to_string().starts_with("cannot apply v1 Service default/s: the API server answered"),
            "{error}"
        );
        assert!(error.to_string().contains("portz"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(5), "it is not repeated");

        let thing =
            json!({"apiVersion": "nowhere.example.org/v1", "kind": "Lost", "metadata": {"name": "x"}});
        let mut set = ManifestSet::new("kubeline-lost");
        set.add(config_map("default", "lost", json!({}))).unwrap();
        set.add(Object::new(thing).unwrap()).unwrap();
        let found = cluster.observe(&set).await.unwrap();
        assert!(matches!(found[2].what, What::Undried { promised: false, .. }), "{found:?}");
        assert!(refuse_blocked(&found).is_err());
        let error = cluster.apply(&set, quiet).await.unwrap_err();
        assert!(matches!(error, Error::UnknownKind { .. }), "{error}");
        let untouched = cluster.get("v1", "ConfigMap", Some("default"), "lost").await.unwrap();
        assert!(untouched.is_none(), "nothing is applied before all kinds are known");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn immutable_fields_are_found_by_the_dry_run_and_recreated() {
    for server in servers().await {
        let cluster = cluster(&server).await;
        let class = |value: &str| {
            let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "fixed"},
                "provisioner": "example.org/nfs", "parameters": {"a": value}});
            Object::new(class).unwrap()
        };
        let with = |value: &str| {
            let mut set = ManifestSet::new("kubeline-fixed");
            set.add(class(value)).unwrap();
            set
        };
        cluster.apply(&with("1"), quiet).await.unwrap();
        let new = with("2");
        let found = cluster.observe(&new).await.unwrap();
        assert!(
            matches!(&found[1].what, What::Immutable { reason } if reason.contains("parameters")),
            "{found:?}"
        );

        // The same of a Deployment's selector, whose pods it would lose.
        let deployment = |app: &str| {
            let mut set = ManifestSet::new("kubeline-selector");
            let labels = json!({ "app": app });
            let template = json!({"metadata": {"labels": labels},
                "spec": {"containers": [{"name": "c", "image": "registry.k8s.io/pause:3.10"}]}});
            let spec = json!({"replicas": 0, "selector": {"matchLabels": labels}, "template": template});
            let metadata = json!({"name": "fixed", "namespace": "default"});
            let object =
                json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec});
            set.add(Object::new(object).unwrap()).unwrap();
            set
        };
        cluster.apply(&deployment("one"), quiet).await.unwrap();
        let found = cluster.observe(&deployment("two")).await.unwrap();
        assert!(
            matches!(&found[1].what, What::Immutable { reason } if reason.contains("spec.selector")),
            "{found:?}"
        );
        assert!(matches!(cluster.apply(&new, quiet).await, Err(Error::Immutable { .. })));
        let applied = cluster.recreate(&new.objects()[0], Duration::from_secs(20), |_| {}).await.unwrap();
        assert!(applied.created);
        let found = cluster.observe(&new).await.unwrap();
        assert!(found.iter().all(|difference| difference.is_same()), "{found:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_left_the_set_goes_and_nothing_else() {
    for server in servers().await {
        let cluster = cluster(&server).await;
        let mut old = set_of("kubeline-prune", &namespace("prune"));
        for name in ["stays", "leaves"] {
            old.add(config_map("prune", name, json!({"k": "v"}))).unwrap();
        }
        let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data", "namespace": "prune"},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "none", "resources": {"requests": {"storage": "1Gi"}}}});
        old.add(Object::new(claim).unwrap()).unwrap();
        cluster.apply(&old, quiet).await.unwrap();
        // Somebody else's object that came by the label, as copies of objects do.
        let other = Cluster::connect(&server.kubeconfig, "somebody-else").await.unwrap();
        let mut theirs = config_map("prune", "theirs", json!({}));
        theirs.set_label("applyset.kubernetes.io/part-of", &old.applyset_id());
        other.apply_object(&theirs).await.unwrap();
        assert!(cluster.leftovers(&old).await.unwrap().is_empty());

        let mut new = set_of("kubeline-prune", &namespace("prune"));
        new.add(config_map("prune", "stays", json!({"k": "v"}))).unwrap();
        cluster.apply(&new, quiet).await.unwrap();
        let shown = |found: Vec<kube_apply::Leftover>| -> Vec<String> {
            found.iter().map(|one| format!("{} {}", one.id, one.holds.unwrap_or("goes"))).collect()
        };
        let found = shown(cluster.leftovers(&new).await.unwrap());
        assert_eq!(
            found,
            ["v1 ConfigMap prune/leaves goes", "v1 PersistentVolumeClaim prune/data it holds data"]
        );
        let none = cluster.prune_those(&new, |left| left.id.name == "another").await.unwrap();
        assert!(
            none.is_empty() && cluster.leftovers(&new).await.unwrap().len() == 2,
            "only what was named goes"
        );
        let gone = cluster.prune(&new, Prune::KeepData).await.unwrap();
        assert_eq!(gone, [ObjectId::new("v1", "ConfigMap", Some("prune"), "leaves")]);
        for (name, stays) in [("stays", true), ("leaves", false), ("theirs", true)] {
            let live = cluster.get("v1", "ConfigMap", Some("prune"), name).await.unwrap();
            assert_eq!(live.is_some(), stays, "{name}");
        }
        // The claim is still known, and a second run finds nothing to do.
        assert_eq!(cluster.leftovers(&new).await.unwrap().len(), 1);
        let before = versions(&cluster, &new).await;
        assert!(cluster.prune(&new, Prune::KeepData).await.unwrap().is_empty());
        assert!(cluster.observe(&new).await.unwrap().iter().all(|difference| difference.is_same()));
        assert_eq!(versions(&cluster, &new).await, before);
        // Asked for by name, data goes as well.
        let gone = cluster.prune(&new, Prune::WithData).await.unwrap();
        assert_eq!(gone, [ObjectId::new("v1", "PersistentVolumeClaim", Some("prune"), "data")]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn definitions_are_pruned_only_with_data() {
    for server in servers().await {
        let cluster = cluster(&server).await;
        let old = set_of("kubeline-kinds", SET);
        cluster.apply(&old, quiet).await.unwrap();
        let mut new = ManifestSet::new("kubeline-kinds");
        new.add(config_map("demo", "settings", json!({"a": "1"}))).unwrap();
        cluster.apply(&new, quiet).await.unwrap();
        let kept = |found: &[kube_apply::Leftover]| -> Vec<String> {
            let held = found.iter().filter(|one| one.holds.is_some());
            held.map(|one| one.id.kind.clone()).collect()
        };
        assert_eq!(kept(&cluster.leftovers(&new).await.unwrap()), ["CustomResourceDefinition", "Namespace"]);
        let gone = cluster.prune(&new, Prune::KeepData).await.unwrap();
        assert_eq!(gone.iter().map(|id| id.kind.as_str()).collect::<Vec<_>>(), ["Thing"]);
        let definition =
            || cluster.get("apiextensions.k8s.io/v1", "CustomResourceDefinition", None, "things.example.org");
        assert!(definition().await.unwrap().is_some());
        let gone = cluster.prune(&new, Prune::WithData).await.unwrap();
        assert_eq!(
            gone.iter().map(|id| id.kind.as_str()).collect::<Vec<_>>(),
            ["CustomResourceDefinition", "Namespace"]
        );
        let id =
            ObjectId::new("apiextensions.k8s.io/v1", "CustomResourceDefinition", None, "things.example.org");
        cluster.wait(&Wait::Gone { id }, Duration::from_secs(20), |_| {}).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_says_what_it_lacks() {
    for server in servers().await {
        let cluster = cluster(&server).await;
        let mut set = set_of("kubeline-kinds", SET);
        let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data", "namespace": "demo"},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "none", "resources": {"requests": {"storage": "1Gi"}}}});
        let api = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1.far.example.org"},
            "spec": {"group": "far.example.org", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 100,
                "service": {"name": "nobody", "namespace": "demo", "port": 443}}});
        let labels = json!({"job": "once"});
        let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once", "namespace": "demo"},
            "spec": {"backoffLimit": 0, "template": {"metadata": {"labels": labels}, "spec": {"restartPolicy": "Never",
                "containers": [{"name": "c", "image": "registry.k8s.io/pause:3.10"}]}}}});
        for object in [claim, api, job] {
            set.add(Object::new(object).unwrap()).unwrap();
        }
        cluster.apply(&set, quiet).await.unwrap();
        let demo = || "demo".to_owned();
        let lacking = async |wait: Wait| {
            let error = cluster.wait(&wait, Duration::from_millis(800), |_| {}).await.unwrap_err();
            assert_eq!(error.class(), Class::Transient, "{error}");
            error.to_string()
        };
        let said = lacking(Wait::Pvc { namespace: demo(), name: "data".into() }).await;
        assert!(said.starts_with("PersistentVolumeClaim demo/data is not ready after "), "{said}");
        assert!(said.contains("it is Pending, its class is none"), "{said}");
        let said = lacking(Wait::ApiService { name: "v1.far.example.org".into() }).await;
        assert!(said.contains("Available is False: ServiceNotFound"), "{said}");
        let said = lacking(Wait::Condition {
            api_version: "example.org/v1".into(),
            kind: "Thing".into(),
            namespace: Some(demo()),
            name: "first".into(),
            condition: "Ready".into(),
            status: "True".into(),
        })
        .await;
        assert!(said.starts_with("Thing demo/first (Ready=True) is not ready"), "{said}");
        assert!(said.ends_with("it has no condition Ready yet"), "{said}");
        // No node takes a pod, for there is no network plugin: the pod says so.
        let said = lacking(Wait::Job { namespace: demo(), name: "once".into() }).await;
        let reason =
            if server.controllers { "Unschedulable: 0/3" } else { "0 pods are active, 0 have failed" };
        assert!(said.contains(reason), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn waits_say_what_is_lacking_and_keep_their_deadline() {
    for server in servers().await {
        let cluster = cluster(&server).await;
        let said = Mutex::new(Vec::new());
        let say = |text: &str| said.lock().unwrap().push(text.to_owned());
        let wait = Wait::Deployment { namespace: "default".into(), name: "nobody".into() };
        let begun = std::time::Instant::now();
        let error = cluster.wait(&wait, Duration::from_millis(700), say).await.unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(5));
        assert_eq!(error.class(), Class::Transient);
        assert!(error.to_string().starts_with("Deployment default/nobody is not ready after "), "{error}");
        assert!(error.to_string().ends_with("it does not exist yet"), "{error}");
        assert_eq!(*said.lock().unwrap(), ["waiting for Deployment default/nobody: it does not exist yet"]);

        // It is seen as soon as it is there.
        let gone = Wait::Gone { id: ObjectId::new("v1", "ConfigMap", Some("default"), "late") };
        cluster.wait(&gone, Duration::from_secs(5), |_| {}).await.unwrap();
        cluster.apply_object(&config_map("default", "late", json!({}))).await.unwrap();
        let waiting = cluster.wait(&gone, Duration::from_secs(20), |_| {});
        let deleting = async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            cluster.delete(&ObjectId::new("v1", "ConfigMap", Some("default"), "late")).await.unwrap()
        };
        let begun = std::time::Instant::now();
        let (waited, deleted) = tokio::join!(waiting, deleting);
        waited.unwrap();
        assert!(deleted && begun.elapsed() < Duration::from_secs(5), "the watch saw it, not the next look");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn workloads_become_ready_where_controllers_run() {
    for server in servers().await {
        if !server.controllers {
            println!("skipped for {}: no controllers run there", server.name);
            continue;
        }
        let cluster = cluster(&server).await;
        let text = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: work}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      # There is no network plugin: this one needs none, and runs on nodes that are not ready.
      hostNetwork: true
      tolerations: [{operator: Exists}]
      containers: [{name: c, image: \"registry.k8s.io/pause:3.10\"}]
";
        let mut set = set_of("kubeline-work", &namespace("work"));
        set.add_yaml("work", text).unwrap();
        cluster.apply(&set, quiet).await.unwrap();
        let wait = Wait::Deployment { namespace: "work".into(), name: "web".into() };
        let begun = std::time::Instant::now();
        cluster.wait(&wait, Duration::from_secs(30), |_| {}).await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(8), "a watch saw it, not the next look");
        assert_eq!(cluster.ready(&wait).await.unwrap(), Ok(()));
        cluster.wait_all(&set.waits(), Duration::from_secs(30), |_| {}).await.unwrap();
        let nodes = Wait::NodesReady { names: vec![] };
        let error = cluster.wait(&nodes, Duration::from_secs(1), |_| {}).await.unwrap_err();
        assert!(error.to_string().contains("0 of 3 nodes are ready; cp1: KubeletNotReady"), "{error}");
        let mut stuck = ManifestSet::new("kubeline-stuck");
        let mut pod = set.objects()[1].clone();
        pod.value_mut()["metadata"]["name"] = "stuck".into();
        pod.value_mut()["spec"]["template"]["spec"]["tolerations"] = json!([]);
        stuck.add(pod).unwrap();
        cluster.apply(&stuck, quiet).await.unwrap();
        let error = cluster.wait_all(&stuck.waits(), Duration::from_secs(2), |_| {}).await.unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("0 of 2 pods are available; pod stuck-") && text.contains(": Unschedulable: 0/3"),
            "{text}"
        );
        assert_eq!(text.matches("0/3 nodes").count(), 2, "the event says it again and is left out: {text}");
        // What controllers wrote is no difference.
        let found = cluster.observe(&set).await.unwrap();
        assert!(found.iter().all(|difference| difference.is_same()), "{found:#?}");
        let gone = cluster.delete_set(&set, Prune::KeepData, Duration::from_secs(30), |_| {}).await.unwrap();
        assert_eq!(gone.len(), 3, "{gone:?}");
        assert!(cluster.get("v1", "Namespace", None, "work").await.unwrap().is_none());
        let again = cluster.delete_set(&set, Prune::KeepData, Duration::from_secs(30), |_| {}).await.unwrap();
        assert!(again.is_empty(), "{again:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_is_unreachable() {
    let folder = tempfile::tempdir().unwrap();
    let path = server::kubeconfig(folder.path(), "http://127.0.0.1:1", None);
    let cluster = Cluster::connect(&path, MANAGER).await.unwrap().patience(Duration::from_millis(500));
    let error = cluster.version().await.unwrap_err();
    assert_eq!(error.class(), Class::Unreachable);
    assert!(
        error.to_string().starts_with("cannot ask for the version: http://127.0.0.1:1 did not answer"),
        "{error}"
    );
    let cause = std::error::Error::source(&error).unwrap();
    assert!(!cause.to_string().is_empty());

    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = Cluster::connect(&path, MANAGER).await.err().unwrap();
    assert_eq!(error.hint().unwrap(), format!("chmod 600 {}", path.display()));
}

/// A rule for the lab's next requests.
fn fault(matching: &str, times: usize, action: Action) -> Fault {
    Fault { window: Window::Kube, matching: matching.into(), skip: 0, times, action }
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_that_pass_are_sat_out() {
    let server = server::the_lab().await;
    let world = server.lab.clone().unwrap();
    let cluster = cluster(&server).await;
    let actions = [
        Action::Status(503, "the server is overloaded".into()),
        Action::Status(429, "too many requests".into()),
        Action::Status(500, "etcdserver: request timed out".into()),
        Action::StatusAfter(504, "the answer was lost".into()),
        Action::DropBefore,
        Action::DropAfter,
    ];
    for (number, action) in actions.into_iter().enumerate() {
        let object = config_map("default", &format!("fault-{number}"), json!({"k": "v"}));
        world.faults.inject(fault(&format!("fault-{number}"), 2, action.clone()));
        cluster.apply_object(&object).await.unwrap_or_else(|error| panic!("{action:?}: {error}"));
        let live = cluster.get("v1", "ConfigMap", Some("default"), object.name()).await.unwrap();
        assert!(live.is_some(), "{action:?}");
    }
    // One that stays ends in its class, within the patience.
    world.faults.inject(fault("fault-x", usize::MAX, Action::Status(503, "never".into())));
    let short = cluster.patience(Duration::from_secs(1));
    let begun = std::time::Instant::now();
    let error = short.apply_object(&config_map("default", "fault-x", json!({}))).await.unwrap_err();
    assert_eq!(error.class(), Class::Transient, "{error}");
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    world.faults.clear();
    world.faults.inject(fault("fault-y", usize::MAX, Action::Hang));
    let error = short.apply_object(&config_map("default", "fault-y", json!({}))).await.unwrap_err();
    assert_eq!(error.class(), Class::Unreachable, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_run_asks_for_no_change() {
    let server = server::the_lab().await;
    let world = server.lab.clone().unwrap();
    let cluster = cluster(&server).await;
    let set = set_of("kubeline-twice", SET);
    cluster.observe(&set).await.unwrap();
    assert_eq!(world.journal.changing_since(0).len(), 0, "observing asks for no change");
    cluster.apply(&set, quiet).await.unwrap();
    let mark = world.journal.len();
    cluster.apply(&set, quiet).await.unwrap();
    cluster.prune(&set, Prune::KeepData).await.unwrap();
    let requests: Vec<_> =
        world.journal.changing_since(mark).into_iter().map(|entry| entry.request).collect();
    assert_eq!(requests, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_certificate_is_refused_at_once() {
    let (one, other) = (server::the_lab().await, server::the_lab().await);
    let text = std::fs::read_to_string(&one.kubeconfig).unwrap();
    let elsewhere = std::fs::read_to_string(&other.kubeconfig).unwrap();
    let address = |text: &str| text.split('"').nth(1).unwrap().to_owned();
    std::fs::write(&one.kubeconfig, text.replace(&address(&text), &address(&elsewhere))).unwrap();
    let begun = std::time::Instant::now();
    let error = cluster(&one).await.version().await.unwrap_err();
    assert_eq!(error.class(), Class::Precondition, "{error:?}");
    assert!(matches!(error, Error::Untrusted { .. }), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(3));
}

/// Tools run these as tasks.
#[allow(dead_code, reason = "it only has to compile")]
fn futures_can_be_sent(cluster: &Cluster, set: &ManifestSet, wait: &Wait) {
    fn sent<T: Send>(_: T) {}
    sent(cluster.observe(set));
    sent(cluster.apply(set, quiet));
    sent(cluster.prune(set, Prune::KeepData));
    sent(cluster.wait(wait, Duration::ZERO, |_| {}));
    sent(cluster.wait_all(std::slice::from_ref(wait), Duration::ZERO, |_| {}));
    sent(cluster.delete_set(set, Prune::WithData, Duration::ZERO, |_| {}));
}
