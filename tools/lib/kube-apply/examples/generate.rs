//! Writes a manifest set for measuring: `generate calico NAME`, 38 objects in about 8,000 lines of the same kinds and sizes as
//! Calico's manifest; `generate many NAME COUNT`, so many ConfigMaps. NAME keeps the objects of several sets apart.

#![allow(clippy::print_stdout, reason = "an example has no stage")]

use std::fmt::Write;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let text = match arguments.as_slice() {
        ["calico", name] => calico(name),
        ["many", name, count] => many(name, count.parse()?),
        _ => return Err("usage: generate calico NAME | generate many NAME COUNT".into()),
    };
    print!("{text}");
    Ok(())
}

/// 23 definitions, 3 accounts, 4 roles and their bindings, a budget, a ConfigMap, a DaemonSet, a Deployment.
fn calico(name: &str) -> String {
    let mut out = String::new();
    let metadata = |kind: &str, n: usize| format!("metadata:\n  name: {name}-{kind}-{n}\n");
    let namespaced = |kind: &str, n: usize| metadata(kind, n) + "  namespace: kube-system\n";
    let _ = write!(
        out,
        "---\napiVersion: policy/v1\nkind: PodDisruptionBudget\n{}spec:\n  maxUnavailable: 1\n  selector:\n    matchLabels:\n      app: {name}\n",
        namespaced("pdb", 0)
    );
    for n in 0..3 {
        let _ = write!(out, "---\napiVersion: v1\nkind: ServiceAccount\n{}", namespaced("sa", n));
    }
    let _ = write!(
        out,
        "---\napiVersion: v1\nkind: ConfigMap\n{}data:\n  veth_mtu: \"0\"\n",
        namespaced("cm", 0)
    );
    for n in 0..23 {
        definition(&mut out, name, n);
    }
    for n in 0..4 {
        let _ = write!(
            out,
            "---\napiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\n{}rules:\n",
            metadata("role", n)
        );
        for resource in
            ["nodes", "pods", "services", "endpoints", "namespaces", "configmaps", "serviceaccounts"]
        {
            let _ = write!(
                out,
                "- apiGroups:\n  - \"\"\n  resources:\n  - {resource}\n  verbs:\n  - get\n  - list\n  - watch\n"
            );
        }
        let _ = write!(
            out,
            "---\napiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\n{}roleRef:\n  apiGroup: rbac.authorization.k8s.io\n  kind: ClusterRole\n  name: {name}-role-{n}\nsubjects:\n- kind: ServiceAccount\n  name: {name}-sa-0\n  namespace: kube-system\n",
            metadata("binding", n)
        );
    }
    for (kind, extra) in [("DaemonSet", ""), ("Deployment", "  replicas: 1\n")] {
        let _ = write!(
            out,
            "---\napiVersion: apps/v1\nkind: {kind}\n{}spec:\n{extra}  selector:\n    matchLabels:\n      app: {name}\n  template:\n    metadata:\n      labels:\n        app: {name}\n    spec:\n      nodeSelector:\n        kubernetes.io/os: nowhere\n      containers:\n      - name: main\n        image: quay.io/calico/node:v3.32.1\n        env:\n",
            namespaced("work", 0)
        );
        for n in 0..30 {
            let _ = write!(out, "        - name: VARIABLE_{n}\n          value: \"{n}\"\n");
        }
    }
    out
}

/// A definition of about 330 lines: nested objects with descriptions.
fn definition(out: &mut String, name: &str, n: usize) {
    let plural = format!("kind{n}s");
    let group = format!("{name}.example.org");
    let _ = write!(
        out,
        "---\napiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata:\n  name: {plural}.{group}\nspec:\n  group: {group}\n  names:\n    kind: Kind{n}\n    listKind: Kind{n}List\n    plural: {plural}\n    singular: kind{n}\n  scope: Cluster\n  versions:\n  - name: v1\n    served: true\n    storage: true\n    schema:\n      openAPIV3Schema:\n        type: object\n        properties:\n          spec:\n            type: object\n            properties:\n"
    );
    for group in 0..12 {
        let _ = write!(
            out,
            "              group{group}:\n                type: object\n                description: A group of settings that belong together, number {group} of this kind.\n                properties:\n"
        );
        for field in 0..8 {
            let _ = write!(
                out,
                "                  field{field}:\n                    type: string\n                    description: What this field is for, said in a sentence of some length, as the publishers of definitions do.\n"
            );
        }
    }
}

fn many(name: &str, count: usize) -> String {
    let mut out = String::new();
    for n in 0..count {
        let _ = write!(
            out,
            "---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}-{n}\n  namespace: default\ndata:\n  key: value {n}\n  text: |\n"
        );
        for line in 0..10 {
            let _ = writeln!(out, "    line {line} of a text that is some kilobytes long in real life");
        }
    }
    out
}
