//! The shapes of objects: which fields there are, and how their lists and maps merge.

pub(crate) mod check;
pub(crate) mod crd;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::Value;

/// How a list merges under server-side apply.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ListKind {
    /// Replaced whole.
    Atomic,
    /// Values that are each there once.
    Set,
    /// Objects told apart by these keys; a key may have a default.
    Keyed(Vec<(String, Option<Value>)>),
}

/// A type of the schema.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Type {
    /// Anything; objects merge field by field, lists whole.
    Any,
    /// A string.
    Str,
    /// A whole number.
    Int,
    /// A number.
    Num,
    /// A truth value.
    Bool,
    /// A number or a string.
    IntOrStr,
    /// A named built-in type.
    Named(String, bool),
    /// A map of string keys.
    Map(Box<Type>, bool),
    /// A list.
    List(Box<Type>, ListKind),
    /// An object with known fields.
    Object {
        /// The known fields.
        fields: BTreeMap<String, Type>,
        /// Replaced whole.
        atomic: bool,
        /// Unknown fields are kept.
        open: bool,
    },
}

static BUILTIN: LazyLock<BTreeMap<String, Type>> = LazyLock::new(|| parse(include_str!("builtin.txt")));

/// The built-in type of this name, such as `Deployment`.
pub(crate) fn builtin(name: &str) -> Option<&'static Type> {
    BUILTIN.get(name)
}

static ANY: Type = Type::Any;

impl Type {
    /// Follows a name to the type itself; an unknown name is anything.
    pub(crate) fn resolved(&self) -> &Type {
        match self {
            Type::Named(name, _) => BUILTIN.get(name).unwrap_or(&ANY),
            other => other,
        }
    }

    /// True for what server-side apply replaces whole.
    pub(crate) fn atomic(&self) -> bool {
        if let Type::Named(_, true) = self {
            return true;
        }
        match self.resolved() {
            Type::Map(_, atomic) | Type::Object { atomic, .. } => *atomic,
            Type::List(_, kind) => *kind == ListKind::Atomic,
            Type::Any | Type::Named(..) => false,
            _ => true,
        }
    }

    /// The type of a field; `None` when there is no such field.
    pub(crate) fn field(&self, name: &str) -> Option<&Type> {
        match self.resolved() {
            Type::Object { fields, open, .. } => fields.get(name).or(if *open { Some(&ANY) } else { None }),
            Type::Map(of, _) => Some(of),
            Type::Any => Some(&ANY),
            _ => None,
        }
    }

    /// The type of a list's items.
    pub(crate) fn items(&self) -> &Type {
        match self.resolved() {
            Type::List(of, _) => of,
            _ => &ANY,
        }
    }

    /// How a list of this type merges.
    pub(crate) fn list_kind(&self) -> &ListKind {
        match self.resolved() {
            Type::List(_, kind) => kind,
            _ => &ListKind::Atomic,
        }
    }
}

fn parse(text: &str) -> BTreeMap<String, Type> {
    let mut types = BTreeMap::new();
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        let mut words = line.split(' ').filter(|w| !w.is_empty());
        let Some(head) = words.next() else { continue };
        let fields = words
            .filter_map(|w| w.split_once(':'))
            .map(|(name, ty)| (name.to_owned(), parse_type(ty)))
            .collect::<BTreeMap<_, _>>();
        let atomic = head.ends_with('@');
        let name = head.trim_end_matches('@');
        if atomic {
            // `NAME~` where a field merges what its type replaces whole (`+structType=granular` in k8s.io/api).
            let granular = Type::Object { fields: BTreeMap::clone(&fields), atomic: false, open: false };
            types.insert(format!("{name}~"), granular);
        }
        types.insert(name.to_owned(), Type::Object { fields, atomic, open: false });
    }
    types
}

fn parse_type(text: &str) -> Type {
    let (text, atomic) = match text.strip_suffix('@') {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    if let Some(inner) = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')) {
        return Type::Map(Box::new(parse_type(inner)), atomic);
    }
    if let Some(inner) = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        return match inner.rsplit_once('|') {
            None => Type::List(Box::new(parse_type(inner)), ListKind::Atomic),
            Some((of, "")) => Type::List(Box::new(parse_type(of)), ListKind::Set),
            Some((of, keys)) => {
                let keys = keys
                    .split(',')
                    .map(|k| match k.split_once('=') {
                        Some((key, default)) => (key.to_owned(), Some(Value::from(default))),
                        None => (k.to_owned(), None),
                    })
                    .collect();
                Type::List(Box::new(parse_type(of)), ListKind::Keyed(keys))
            }
        };
    }
    match text {
        "str" => Type::Str,
        "int" => Type::Int,
        "num" => Type::Num,
        "bool" => Type::Bool,
        "ios" | "qty" => Type::IntOrStr,
        "any" => Type::Any,
        name => Type::Named(name.to_owned(), atomic),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn every_named_type_is_there() {
        fn names(t: &Type, out: &mut Vec<String>) {
            match t {
                Type::Named(n, _) => out.push(n.clone()),
                Type::Map(of, _) | Type::List(of, _) => names(of, out),
                Type::Object { fields, .. } => fields.values().for_each(|f| names(f, out)),
                _ => {}
            }
        }
        let mut all = Vec::new();
        BUILTIN.values().for_each(|t| names(t, &mut all));
        assert!(all.len() > 300);
        for name in all {
            assert!(BUILTIN.contains_key(&name), "{name}");
        }
    }

    #[test]
    fn ports_are_keyed() {
        let service = builtin("ServiceSpec").unwrap();
        let keys = service.field("ports").unwrap().list_kind();
        assert_eq!(
            *keys,
            ListKind::Keyed(vec![("port".into(), None), ("protocol".into(), Some(Value::from("TCP")))])
        );
        assert!(service.field("selector").unwrap().atomic());
    }

    // Field by field against the OpenAPI documents of a real server, where they are present.
    #[test]
    fn agrees_with_a_real_server() {
        let facts = std::env::var_os("KUBELINE_FACTS").map(std::path::PathBuf::from).or_else(|| {
            let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
            here.ancestors().map(|a| a.join("shared/facts")).find(|p| p.is_dir())
        });
        let Some(facts) = facts else {
            eprintln!(
                "skipped: there is no folder shared/facts beside the workspace, and KUBELINE_FACTS is not set"
            );
            return;
        };
        let mut compared = 0;
        for entry in std::fs::read_dir(facts.join("kube-api/openapi-v3")).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            let document: Value = serde_json::from_str(&text).unwrap();
            for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
                let short = name.rsplit('.').next().unwrap();
                let doubled = ["TokenRequest", "ServiceReference"].contains(&short);
                let (Some(Type::Object { fields, .. }), Some(properties), false) =
                    (BUILTIN.get(short), schema["properties"].as_object(), doubled)
                else {
                    continue;
                };
                compared += 1;
                for (field, ty) in fields {
                    let real = properties.get(field).unwrap_or_else(|| panic!("{name} has no {field}"));
                    assert_eq!(matches!(ty, Type::List(..)), real["type"] == "array", "{name} {field}");
                    if let ListKind::Keyed(keys) = ty.list_kind() {
                        let names: Vec<&String> = keys.iter().map(|(k, _)| k).collect();
                        assert_eq!(
                            real["x-kubernetes-list-map-keys"],
                            serde_json::json!(names),
                            "{name} {field}"
                        );
                    }
                }
            }
        }
        assert!(compared > 200, "only {compared} types were compared");
    }
}
