//! What holds for the objects of every tool that keeps objects in the cluster.

use std::cell::Cell;

use addon::{Installer, Tool, Wanted as _};
use stage::Failure;

use crate::kustomize;

/// Runs the golden cases of such a tool, as [`cases`](crate::cases) does, and checks the objects of each: no field that
/// Kubernetes does not know, custom resources of the kinds `customs` alone, a tag on every image. Where there is a
/// `kubectl`, it reads the rendered folder of each case by `kubectl kustomize`.
///
/// # Errors
/// Every difference and every mistake.
#[allow(clippy::print_stdout, reason = "a test says what it skipped")]
pub fn installer<I: Installer>(
    crate_folder: &str,
    customs: &[&str],
    complete: impl Fn(&mut I::Want) -> Result<(), Failure>,
) -> Result<usize, String>
where
    I::Flags: Default,
{
    let kubectl = kustomize::kubectl();
    let read = Cell::new(0);
    let count = crate::cases::<Tool<I>>(crate_folder, |want: &mut I::Want| {
        complete(want)?;
        let mut wrong = mistakes::<I>(want, customs);
        if kubectl && wrong.is_empty() && !want.addon().is_empty() {
            let files = <Tool<I> as stage::Tool>::render(want)?.unwrap_or_default();
            match kustomize::check(&files) {
                Ok(objects) => read.set(read.get() + objects),
                Err(why) => wrong.push(why),
            }
        }
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(Failure::internal("the objects are not right").because(wrong.join("\n"))),
        }
    })?;
    match kubectl {
        true => println!(
            "{}: kubectl kustomize reads {} objects of {count} cases as rendered",
            I::NAME,
            read.get()
        ),
        false => println!("{}: skipped kubectl kustomize: there is no kubectl on this machine", I::NAME),
    }
    Ok(count)
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
