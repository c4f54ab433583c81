//! The container images that objects name.

use serde_json::Value;

/// Calls `visit` with every image reference inside an object.
pub(crate) fn visit(object: &mut Value, visit: &mut dyn FnMut(&mut String)) {
    match object {
        Value::Array(items) => items.iter_mut().for_each(|item| self::visit(item, visit)),
        Value::Object(map) => {
            for (key, inner) in map {
                match key.as_str() {
                    "containers" | "initContainers" | "ephemeralContainers" => {
                        for container in inner.as_array_mut().into_iter().flatten() {
                            if let Some(Value::String(image)) = container.get_mut("image") {
                                visit(image);
                            }
                        }
                    }
                    "volumes" => {
                        for volume in inner.as_array_mut().into_iter().flatten() {
                            if let Some(Value::String(image)) = volume.pointer_mut("/image/reference") {
                                visit(image);
                            }
                        }
                    }
                    _ => self::visit(inner, visit),
                }
            }
        }
        _ => {}
    }
}

/// The reference of an image in a mirror registry.
///
/// The registry's name is replaced and the rest kept; a short name gets Docker Hub's `library/`, as container runtimes
/// read it (distribution/reference, normalize.go).
pub(crate) fn in_registry(image: &str, registry: &str) -> String {
    let registry = registry.trim_end_matches('/');
    if image.strip_prefix(registry).is_some_and(|rest| rest.starts_with('/')) {
        return image.to_owned();
    }
    let (host, path) = match image.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
        _ => ("docker.io", image),
    };
    if host == "docker.io" && !path.contains('/') {
        return format!("{registry}/library/{path}");
    }
    format!("{registry}/{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_is_replaced() {
        let mirror = "registry.example.org/mirror";
        for (image, wanted) in [
            ("nginx:1.29", "registry.example.org/mirror/library/nginx:1.29"),
            ("docker.io/nginx:1.29", "registry.example.org/mirror/library/nginx:1.29"),
            ("calico/node:v3.31.0", "registry.example.org/mirror/calico/node:v3.31.0"),
            ("quay.io/tigera/operator:v1.40.0", "registry.example.org/mirror/tigera/operator:v1.40.0"),
            ("localhost:5000/a/b@sha256:00", "registry.example.org/mirror/a/b@sha256:00"),
            ("registry.example.org/mirror/a/b:1", "registry.example.org/mirror/a/b:1"),
        ] {
            assert_eq!(in_registry(image, mirror), wanted);
            assert_eq!(in_registry(image, "registry.example.org/mirror/"), wanted);
        }
    }
}
