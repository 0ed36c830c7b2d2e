//! The clone as a block device, loaded by fio.

use std::error::Error;

use super::export::Server;
use super::figures::Sample;
use super::fio::Load;
use super::operation::{PHASES, Part};
use super::technique::Technique;

/// All operations with each technique. Techniques take turns within a phase, so that what the machine does meanwhile meets
/// all of them.
pub(super) fn measure(
    server: &Server<'_>,
    load: &Load,
    techniques: &[Technique],
    round: usize,
) -> Result<Vec<Sample>, Box<dyn Error>> {
    let mut samples = Vec::new();
    for phase in PHASES {
        for &technique in techniques.iter().filter(|technique| technique.obstacle(phase[0]).is_none()) {
            let clone = server.workshop.make(technique, phase[0].writes())?;
            let export = server.serve(technique, &clone)?;
            for operation in phase {
                let per_s = load.run(operation, &export.place, server.folder)?;
                samples.push(Sample { part: Part::Blocks, operation, technique, round, per_s });
            }
        }
    }
    Ok(samples)
}
