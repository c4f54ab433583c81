//! The objects: one provisioner and one class an export.

use addon::{Addon, Installer as _};
use render::Template;
use serde::Serialize;
use stage::Failure;

use crate::Nfs;

#[derive(Serialize)]
struct Nothing {}

const BASE: Template<Nothing> = Template::new("base.yaml", include_str!("templates/base.yaml.j2"));
const EXPORT: Template<Class> = Template::new("export.yaml", include_str!("templates/export.yaml.j2"));

/// A storage class, for its template.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Class {
    /// Its name.
    pub name: String,
    /// Its provisioner's name.
    pub provisioner: String,
    /// The NFS machine's address.
    pub server: String,
    /// The exported folder.
    pub path: String,
    /// `archive`, `delete` or `retain`.
    pub on_delete: &'static str,
    /// True for the class of claims that name none.
    pub default: bool,
    /// The provisioner's image.
    pub image: &'static str,
}

pub(crate) fn addon(classes: &[Class], registry: Option<&String>) -> Result<Addon, Failure> {
    let fail = |e: render::Error| Failure::internal(e.to_string()).caused_by(&e);
    let mut addon = Addon::new(Nfs::NAME);
    addon.wave().add("base.yaml", &BASE.render(&Nothing {}).map_err(fail)?)?;
    for class in classes {
        addon.add(&class.name, &EXPORT.render(class).map_err(fail)?)?;
    }
    addon.until_workloads().mirror(registry);
    Ok(addon)
}
