//! Cloud images: what a template is made from.

use stage::Failure;

use crate::seen::Seen;
use crate::want::Want;
use crate::world::World;

/// Looks for the image where a template is missing.
///
/// # Errors
/// As Proxmox says.
pub async fn observe(_world: &World, _want: &Want, _seen: &mut Seen) -> Result<(), Failure> {
    Ok(())
}
