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
                            for list in ["args", "command"] {
                                let arguments = container.get_mut(list).and_then(Value::as_array_mut);
                                arguments.into_iter().flatten().for_each(|one| in_argument(one, visit));
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

/// A flag that names an image for pods that the program makes, such as cert-manager's
/// `--acme-http01-solver-image=quay.io/jetstack/cert-manager-acmesolver:v1.21.1`.
fn in_argument(argument: &mut Value, visit: &mut dyn FnMut(&mut String)) {
    let Value::String(text) = argument else { return };
    let Some((flag, image)) = text.split_once('=') else { return };
    if flag.starts_with('-') && flag.ends_with("-image") && !image.is_empty() && !image.contains("$(") {
        let (flag, mut image) = (flag.to_owned(), image.to_owned());
        visit(&mut image);
        *text = format!("{flag}={image}");
    }
}

/// The reference of an image in a mirror registry.
///
/// The registry's name is replaced and the rest kept; a short name gets Docker Hub's `library/`, as container runtimes
/// read it (distribution/reference, normalize.go).
pub fn in_registry(image: &str, registry: &str) -> String {
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
    fn flags_name_images_as_well() {
        let mut pod = serde_json::json!({"spec": {"containers": [{"image": "a:1",
            "args": ["--v=2", "--acme-http01-solver-image=quay.io/jetstack/solver:v1", "--image-gc=$(X)"]}]}});
        let mut found = Vec::new();
        visit(&mut pod, &mut |image| {
            found.push(image.clone());
            *image = in_registry(image, "mirror.example.org");
        });
        assert_eq!(found, ["a:1", "quay.io/jetstack/solver:v1"]);
        let solver = "--acme-http01-solver-image=mirror.example.org/jetstack/solver:v1";
        assert_eq!(pod["spec"]["containers"][0]["args"][1], solver);
    }

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
