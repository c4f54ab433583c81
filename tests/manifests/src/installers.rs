//! What holds for the objects of every tool that keeps objects in the cluster.

use addon::{Installer, Tool, Wanted as _};
use stage::Failure;

/// Runs the golden cases of such a tool, as [`cases`](crate::cases) does, and checks the objects of each: no field that
/// Kubernetes does not know, custom resources of the kinds `customs` alone, a tag on every image.
///
/// # Errors
/// Every difference and every mistake.
pub fn installer<I: Installer>(
    crate_folder: &str,
    customs: &[&str],
    complete: impl Fn(&mut I::Want) -> Result<(), Failure>,
) -> Result<usize, String>
where
    I::Flags: Default,
{
    crate::cases::<Tool<I>>(crate_folder, |want: &mut I::Want| {
        complete(want)?;
        let wrong = mistakes::<I>(want, customs);
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(Failure::internal("the objects are not right").because(wrong.join("\n"))),
        }
    })
}

fn mistakes<I: Installer>(want: &I::Want, customs: &[&str]) -> Vec<String> {
    let (mut wrong, others) = match crate::check(want.addon().values()) {
        Ok((_, others)) => (Vec::new(), others),
        Err(wrong) => (wrong, Vec::new()),
    };
    wrong.extend(others.into_iter().filter(|kind| !customs.contains(&kind.as_str())));
    let images = addon::images::<I>(want).unwrap_or_default();
    let untagged =
        images.into_values().filter(|image| !image.rsplit('/').next().unwrap_or_default().contains(':'));
    wrong.extend(untagged.map(|image| format!("{image} has no tag")));
    wrong
}
