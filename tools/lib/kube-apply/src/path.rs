//! Where in an object a field stands.

/// One step of a path into an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Key(String),
    /// The item of a list whose field has that value.
    Item(&'static str, String),
    Index(usize),
}

/// The path as people write it, `.spec.containers[name=traefik].image`.
pub(crate) fn written(path: &[Step]) -> String {
    let mut out = String::new();
    for step in path {
        match step {
            Step::Key(key) if key.contains(['.', '/', '[']) => out.push_str(&format!("[\"{key}\"]")),
            Step::Key(key) => out.push_str(&format!(".{key}")),
            Step::Item(key, value) => out.push_str(&format!("[{key}={value}]")),
            Step::Index(index) => out.push_str(&format!("[{index}]")),
        }
    }
    out
}
