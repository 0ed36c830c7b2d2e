//! What was measured, and what it is over the plain file of the same round.

use serde::Serialize;

use super::operation::{Operation, Part};
use super::technique::Technique;

/// One operation with one technique, once.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Sample {
    pub(super) part: Part,
    pub(super) operation: Operation,
    pub(super) technique: Technique,
    /// Which turn.
    pub(super) round: usize,
    /// How much was done in a second, in the operation's unit.
    pub(super) per_s: f64,
}

/// A figure of several rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) least: f64,
    pub(super) greatest: f64,
}

/// All that was measured.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
pub(super) struct Figures(pub(super) Vec<Sample>);

impl Figures {
    /// What was done in a second.
    pub(super) fn speed(&self, part: Part, operation: Operation, technique: Technique) -> Option<Spread> {
        Spread::of(self.of(part, operation, technique).map(|sample| sample.per_s).collect())
    }

    /// Over the technique's yardstick. Pairs are of one round: whatever else the machine did then met both.
    pub(super) fn ratio(&self, part: Part, operation: Operation, technique: Technique) -> Option<Spread> {
        let yardstick = |round| self.of(part, operation, technique.yardstick()).find(|sample| sample.round == round);
        let pairs = self.of(part, operation, technique).filter_map(|sample| Some((sample, yardstick(sample.round)?)));
        Spread::of(pairs.map(|(sample, yardstick)| sample.per_s / yardstick.per_s).collect())
    }

    fn of(&self, part: Part, operation: Operation, technique: Technique) -> impl Iterator<Item = &Sample> {
        self.0
            .iter()
            .filter(move |sample| (sample.part, sample.operation, sample.technique) == (part, operation, technique))
    }
}

impl Spread {
    /// Of an even number of values the lower of the two in the middle is the median.
    fn of(mut values: Vec<f64>) -> Option<Spread> {
        values.sort_by(f64::total_cmp);
        let (&least, &greatest) = (values.first()?, values.last()?);
        Some(Spread { median: values[(values.len() - 1) / 2], least, greatest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(samples: &[(Technique, usize, f64)]) -> Figures {
        let operation = Operation::RandomRead;
        let sample = |&(technique, round, per_s)| Sample { part: Part::Blocks, operation, technique, round, per_s };
        Figures(samples.iter().map(sample).collect())
    }

    #[test]
    fn ratios_are_of_pairs_of_one_round() {
        let figures = figures(&[
            (Technique::Plain, 0, 100.0),
            (Technique::Reflink, 0, 50.0),
            // Here the machine was slow.
            (Technique::Plain, 1, 10.0),
            (Technique::Reflink, 1, 6.0),
            (Technique::Plain, 2, 100.0),
            (Technique::Reflink, 2, 40.0),
            // A round without its pair.
            (Technique::Reflink, 3, 1.0),
        ]);
        let ratio = figures.ratio(Part::Blocks, Operation::RandomRead, Technique::Reflink);
        assert_eq!(ratio, Some(Spread { median: 0.5, least: 0.4, greatest: 0.6 }));
        let own = figures.ratio(Part::Blocks, Operation::RandomRead, Technique::Plain);
        assert_eq!(own, Some(Spread { median: 1.0, least: 1.0, greatest: 1.0 }));
        assert_eq!(figures.ratio(Part::Blocks, Operation::RandomRead, Technique::Qcow2Fast), None);
        assert_eq!(
            figures.speed(Part::Blocks, Operation::RandomRead, Technique::Plain).map(|speed| speed.least),
            Some(10.0)
        );
    }

    #[test]
    fn a_differencing_vhd_is_compared_with_what_the_same_program_reads() {
        let figures =
            figures(&[(Technique::Plain, 0, 1000.0), (Technique::VhdFixed, 0, 100.0), (Technique::Vhd, 0, 90.0)]);
        let ratio = figures.ratio(Part::Blocks, Operation::RandomRead, Technique::Vhd);
        assert_eq!(ratio.map(|ratio| ratio.median), Some(0.9));
    }
}
