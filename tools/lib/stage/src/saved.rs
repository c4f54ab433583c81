//! A plan on disk: `plan --save`, `apply --plan`.

use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::plan::Plan;
use crate::{Failure, Tool, output};

fn value<T: Tool>(plan: &Plan<T::Step>, spec: &str) -> Value {
    let digest = Sha256::digest(spec.as_bytes()).iter().map(|b| format!("{b:02x}")).collect::<String>();
    let mut saved = plan.json(T::NAME);
    saved["spec"] = format!("sha256:{digest}").into();
    saved["format"] = json!(1);
    saved
}

/// Writes the plan.
pub(crate) fn save<T: Tool>(plan: &Plan<T::Step>, spec: &str, path: &Path) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(&value::<T>(plan, spec)).unwrap_or_default() + "\n";
    output::write_file(path, text.as_bytes(), 0o600).map(drop)
}

/// Refuses unless the plan of now is the saved one.
pub(crate) fn confirm<T: Tool>(plan: &Plan<T::Step>, spec: &str, path: &Path) -> Result<(), Failure> {
    let cannot = || Failure::precondition(format!("cannot use the plan in {}", path.display()));
    let text = std::fs::read(path).map_err(|e| cannot().because(e.to_string()))?;
    let saved: Value = serde_json::from_slice(&text).map_err(|e| cannot().because(e.to_string()))?;
    let now = value::<T>(plan, spec);
    if saved == now {
        return Ok(());
    }
    let count = |v: &Value| v["steps"].as_array().map_or(0, Vec::len);
    let what = match () {
        () if saved["tool"] != now["tool"] => format!("it is a plan of {}", saved["tool"]),
        () if saved["spec"] != now["spec"] => "the document's spec has changed since".to_owned(),
        () => format!(
            "the world has moved since: {} steps were planned, {} are due now",
            count(&saved),
            count(&now)
        ),
    };
    Err(cannot().because(what).hint(format!("{} plan --save {} < DOCUMENT", T::NAME, path.display())))
}
