//! Golden folders: a document and what is seen, beside the plan, the rendered files and the status that follow.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cluster_doc::Document;
use serde::de::DeserializeOwned;
use stage::{Failure, Site, Tool};

use crate::golden;

/// Runs every case below `tests/golden` of a crate: a folder with `document.json` and, unless nothing is there
/// yet, `seen.json`. Compared are `plan.txt`, `destroy.txt`, `status.json` and `rendered.txt`; for a document that is
/// refused, `refused.txt`.
///
/// # Errors
/// Every difference; no case at all is one, too.
pub fn cases<T>(
    crate_folder: &str,
    complete: impl Fn(&mut T::Want) -> Result<(), Failure>,
) -> Result<usize, String>
where
    T: Tool,
    T::Flags: Default,
    T::Seen: DeserializeOwned + Default,
{
    let root = Path::new(crate_folder).join("tests/golden");
    let entries = std::fs::read_dir(&root).map_err(|e| format!("{}: {e}", root.display()))?;
    let mut folders: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    folders.retain(|folder| folder.join("document.json").exists());
    folders.sort();
    let mut wrong = Vec::new();
    for folder in &folders {
        wrong.extend(case::<T>(folder, &complete).err());
    }
    match (folders.len(), wrong.is_empty()) {
        (0, _) => Err(format!("{} holds no case", root.display())),
        (count, true) => Ok(count),
        _ => Err(wrong.join("\n\n")),
    }
}

fn case<T>(folder: &Path, complete: &impl Fn(&mut T::Want) -> Result<(), Failure>) -> Result<(), String>
where
    T: Tool,
    T::Flags: Default,
    T::Seen: DeserializeOwned + Default,
{
    let read = |name: &str| {
        std::fs::read_to_string(folder.join(name)).map_err(|e| format!("{}/{name}: {e}", folder.display()))
    };
    let site = Site::new(folder.to_owned(), Arc::new(|_| None));
    let wanted = Document::parse(read("document.json")?)
        .map_err(Failure::from)
        .and_then(|doc| T::want(&T::Flags::default(), &doc, &site));
    let mut want = match wanted {
        Ok(want) => want,
        Err(failure) => return golden(&folder.join("refused.txt"), &failure.print(T::NAME)),
    };
    complete(&mut want).map_err(|failure| failure.print(T::NAME))?;
    let seen: T::Seen = match read("seen.json") {
        Ok(text) => {
            serde_json::from_str(&text).map_err(|e| format!("{}/seen.json: {e}", folder.display()))?
        }
        Err(_) => T::Seen::default(),
    };
    golden(&folder.join("plan.txt"), &T::plan(&want, &seen).text(T::NAME))?;
    golden(&folder.join("destroy.txt"), &T::teardown(&want, &seen).text(T::NAME))?;
    let status = serde_json::to_string_pretty(&T::status(&want, &seen)).map_err(|e| e.to_string())?;
    golden(&folder.join("status.json"), &(status + "\n"))?;
    let rendered = T::render(&want).map_err(|failure| failure.print(T::NAME))?;
    let mut text = String::new();
    for file in rendered.into_iter().flatten() {
        text.push_str(&format!("# {}\n{}", file.path, String::from_utf8_lossy(&file.content)));
    }
    golden(&folder.join("rendered.txt"), &text)
}
