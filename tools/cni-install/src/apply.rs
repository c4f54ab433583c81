//! One step.

use addon::World;
use stage::{Ctx, Failure};

use crate::plan::Step;
use crate::want::Want;

pub(crate) async fn apply(step: &Step, world: &World, want: &Want, ctx: &Ctx) -> Result<(), Failure> {
    addon::apply(step, world, &want.addon, ctx).await
}
