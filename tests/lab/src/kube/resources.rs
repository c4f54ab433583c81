//! The resources that are served: the built-in ones, and those that CRDs add.

use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::schema::{self, Type};

/// All verbs of a plain resource.
pub(crate) const VERBS: [&str; 8] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// A resource in one version of its group.
#[derive(Clone, Debug)]
pub struct Resource {
    /// The group; empty for the core.
    pub group: String,
    /// The version.
    pub version: String,
    /// The name in paths.
    pub plural: String,
    /// The name of one.
    pub singular: String,
    /// The kind.
    pub kind: String,
    /// True when its objects live in namespaces.
    pub namespaced: bool,
    /// Short names.
    pub short: Vec<String>,
    /// Categories, such as `all`.
    pub categories: Vec<String>,
    /// Has `/status`.
    pub status: bool,
    /// Has `/scale`.
    pub scale: bool,
    /// `metadata.generation` counts.
    pub generation: bool,
    /// The verbs, when not all eight.
    pub verbs: Vec<String>,
    /// The custom part, for a resource of a CRD.
    pub custom: Option<Arc<Custom>>,
}

/// What a CRD says of one version.
#[derive(Debug)]
pub struct Custom {
    /// The OpenAPI v3 schema.
    pub schema: Value,
    pub(crate) ty: Type,
    /// The kind of the list.
    pub list_kind: String,
    /// Printer columns.
    pub columns: Vec<Value>,
    /// Paths of the scale subresource, if any.
    pub scale: Value,
}

impl Resource {
    /// `group/version`, or `v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `deployments.apps`, `pods`.
    pub fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.clone() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// The name of its objects' store: versions of a group share one, and so do both kinds of events.
    pub fn store(&self) -> String {
        if self.group == "events.k8s.io" { "events".into() } else { self.qualified() }
    }

    /// The kind of a list.
    pub fn list_kind(&self) -> String {
        match &self.custom {
            Some(custom) => custom.list_kind.clone(),
            None => format!("{}List", self.kind),
        }
    }

    /// The type of its objects; `None` when the lab does not know the kind.
    pub(crate) fn ty(&self) -> Option<Type> {
        match &self.custom {
            Some(custom) => Some(custom.ty.clone()),
            None if self.group == "events.k8s.io" => None,
            None if self.kind == "HorizontalPodAutoscaler" && self.version == "v1" => None,
            None => schema::builtin(&self.kind).map(schema::check::rooted),
        }
    }

    /// True when it has this verb.
    pub fn has(&self, verb: &str) -> bool {
        self.verbs.is_empty() || self.verbs.iter().any(|v| v == verb)
    }

    /// Its entries in an `APIResourceList`: itself and its subresources.
    pub fn discovery(&self) -> Vec<Value> {
        let mut own = json!({"name": self.plural, "singularName": self.singular, "namespaced": self.namespaced,
            "kind": self.kind, "verbs": self.verb_list()});
        if !self.short.is_empty() {
            own["shortNames"] = self.short.clone().into();
        }
        if !self.categories.is_empty() {
            own["categories"] = self.categories.clone().into();
        }
        if self.has("list") {
            own["storageVersionHash"] = self.hash().into();
        }
        let mut all = vec![own];
        let verbs = json!(["get", "patch", "update"]);
        if self.plural == "pods" {
            all.push(
                json!({"name": "pods/eviction", "singularName": "", "namespaced": true, "group": "policy",
                "version": "v1", "kind": "Eviction", "verbs": ["create"]}),
            );
        }
        if self.plural == "certificatesigningrequests" {
            all.push(
                json!({"name": "certificatesigningrequests/approval", "singularName": "", "namespaced": false,
                "kind": self.kind, "verbs": verbs}),
            );
        }
        if self.scale {
            all.push(json!({"name": format!("{}/scale", self.plural), "singularName": "", "namespaced": self.namespaced,
                "group": "autoscaling", "version": "v1", "kind": "Scale", "verbs": verbs}));
        }
        if self.status {
            all.push(json!({"name": format!("{}/status", self.plural), "singularName": "",
                "namespaced": self.namespaced, "kind": self.kind, "verbs": verbs}));
        }
        if self.plural == "serviceaccounts" {
            all.push(json!({"name": "serviceaccounts/token", "singularName": "", "namespaced": true,
                "group": "authentication.k8s.io", "version": "v1", "kind": "TokenRequest", "verbs": ["create"]}));
        }
        all
    }

    /// Its verbs.
    pub fn verb_list(&self) -> Vec<String> {
        if self.verbs.is_empty() {
            VERBS.iter().map(|v| (*v).to_owned()).collect()
        } else {
            self.verbs.clone()
        }
    }

    // staging/src/k8s.io/apiserver/pkg/endpoints/discovery/storageversionhash.go: the first 8 bytes of SHA-256.
    fn hash(&self) -> String {
        let sum = Sha256::digest(format!("{}/{}/{}", self.group, self.version, self.kind));
        base64::engine::general_purpose::STANDARD.encode(&sum[..8])
    }
}

static BUILTIN: LazyLock<Vec<Resource>> =
    LazyLock::new(|| include_str!("resources.txt").lines().filter_map(parse).collect());

fn parse(line: &str) -> Option<Resource> {
    let words: Vec<&str> = line.split(' ').collect();
    if line.starts_with('#') {
        return None;
    }
    let [group, version, plural, singular, kind, scope, options @ ..] = words.as_slice() else { return None };
    let text = |t: &str| if t == "-" { String::new() } else { t.to_owned() };
    let list = |name: &str| -> Vec<String> {
        options
            .iter()
            .filter_map(|o| o.strip_prefix(name)?.strip_prefix('='))
            .flat_map(|v| v.split(',').map(str::to_owned))
            .collect()
    };
    let mut verbs = list("verbs");
    verbs.sort();
    Some(Resource {
        group: text(group),
        version: text(version),
        plural: text(plural),
        singular: text(singular),
        kind: text(kind),
        namespaced: *scope == "ns",
        short: list("short"),
        categories: list("cat"),
        status: options.contains(&"status"),
        scale: options.contains(&"scale"),
        generation: options.contains(&"gen"),
        verbs,
        custom: None,
    })
}

/// The built-in resources, in the order of discovery; a group without resources has an empty plural.
pub fn builtin() -> &'static [Resource] {
    &BUILTIN
}

/// The resources of a CRD, one a served version.
pub fn of_crd(crd: &Value) -> Vec<Resource> {
    let spec = &crd["spec"];
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let texts = |v: &Value| -> Vec<String> {
        v.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let names = &spec["names"];
    let mut all = Vec::new();
    for version in spec["versions"].as_array().into_iter().flatten() {
        if version["served"] != true {
            continue;
        }
        let schema = version["schema"]["openAPIV3Schema"].clone();
        let sub = &version["subresources"];
        all.push(Resource {
            group: text(&spec["group"]),
            version: text(&version["name"]),
            plural: text(&names["plural"]),
            singular: text(&names["singular"]),
            kind: text(&names["kind"]),
            namespaced: spec["scope"] == "Namespaced",
            short: texts(&names["shortNames"]),
            categories: texts(&names["categories"]),
            status: sub["status"].is_object(),
            scale: sub["scale"].is_object(),
            generation: true,
            verbs: Vec::new(),
            custom: Some(Arc::new(Custom {
                ty: schema::crd::type_of(&schema, true),
                schema,
                list_kind: text(&names["listKind"]),
                columns: version["additionalPrinterColumns"].as_array().cloned().unwrap_or_default(),
                scale: sub["scale"].clone(),
            })),
        });
    }
    all
}
