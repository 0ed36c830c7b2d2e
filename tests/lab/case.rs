//! A case: which hosts on which wires fetch how much. One TOML file each in `cases/`, built into the program; others are
//! named by their path.
//!
//! Host 0 is always the source. Rates count whole Ethernet frames, as the wire does; the bound is of payload alone, so
//! headers and acknowledgements count against a contender. A result below its bound is a bug in the measurement.

use serde::Deserialize;

/// One case, as its file says.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    /// What the command line calls it.
    pub(crate) name: String,
    /// What a table calls it.
    pub(crate) title: String,
    /// Length of the image; all of it is random, so nothing can be left out or compressed.
    pub(crate) image_mib: u64,
    /// How many hosts, the source among them.
    pub(crate) hosts: usize,
    /// The last so many of them take no part: they are for `lab attack`.
    #[serde(default)]
    pub(crate) hostile: usize,
    /// What a host can send; unshaped if there is none.
    #[serde(default)]
    pub(crate) up_mbit: Option<f64>,
    /// What a host can receive; unshaped if there is none.
    #[serde(default)]
    pub(crate) down_mbit: Option<f64>,
    /// Packets that a host loses of those that reach it, in percent.
    #[serde(default)]
    loss_percent: f64,
    /// Whether switches send a multicast only to hosts that have joined its group (IGMP snooping, with a querier). Else they flood it,
    /// which is what udpcast needs.
    #[serde(default)]
    pub(crate) snooping: bool,
    /// Hosts that differ from the others.
    #[serde(default)]
    host: Vec<OtherHost>,
    /// How hosts stand in racks; all behind one switch if there is none.
    #[serde(default)]
    pub(crate) racks: Option<Racks>,
    /// The last finisher over the bound that Drover is to reach, among the hosts that have the usual rates.
    #[serde(default)]
    pub(crate) goal: Option<f64>,
    /// The same for hosts that are slower, each over its own bound.
    #[serde(default)]
    pub(crate) goal_slow: Option<f64>,
    /// How often each byte may cross the uplink between racks.
    #[serde(default)]
    pub(crate) goal_uplink: Option<f64>,
}

/// A host with wires of its own.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct OtherHost {
    index: usize,
    #[serde(default)]
    up_mbit: Option<f64>,
    #[serde(default)]
    down_mbit: Option<f64>,
    #[serde(default)]
    loss_percent: Option<f64>,
}

/// Two racks, each with a switch of its own, and one link between these.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Racks {
    /// Hosts of the first rack, which has the source, and of the second.
    pub(crate) sizes: [usize; 2],
    /// What the link between the racks carries, each way.
    pub(crate) uplink_mbit: f64,
}

/// A case that can't be run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CaseError {
    /// No such case.
    #[error("there is no case {0:?}; `lab list` names all, and PATH.toml is a case of your own")]
    Unknown(String),
    /// A file that can't be read.
    #[error("read the case {name}: {cause}")]
    Read {
        /// Which.
        name: String,
        /// Why.
        cause: std::io::Error,
    },
    /// A file that is no case.
    #[error("read the case {name}: {cause}")]
    Parse {
        /// Which.
        name: String,
        /// Why.
        cause: toml::de::Error,
    },
    /// A case that contradicts itself.
    #[error("the case {name}: {problem}")]
    Contradiction {
        /// Which.
        name: String,
        /// How.
        problem: String,
    },
}

impl Case {
    /// All cases, in the order of the goals.
    pub(crate) fn all() -> Result<Vec<Self>, CaseError> {
        FILES.iter().map(|(name, text)| Self::parse(name, text)).collect()
    }

    /// The cases of these names; without names all that have a goal.
    pub(crate) fn select(names: &[String]) -> Result<Vec<Self>, CaseError> {
        let all = Self::all()?;
        if names.is_empty() {
            return Ok(all.into_iter().filter(|case| case.goal.is_some()).collect());
        }
        let find = |name: &String| {
            if name.ends_with(".toml") {
                let text = std::fs::read_to_string(name);
                return Self::parse(name, &text.map_err(|cause| CaseError::Read { name: name.clone(), cause })?);
            }
            all.iter().find(|case| case.name == *name).cloned().ok_or_else(|| CaseError::Unknown(name.clone()))
        };
        names.iter().map(find).collect()
    }

    /// `hosts` hosts on wires without a limit or a loss.
    pub(crate) fn unshaped(name: &str, title: &str, hosts: usize, image_mib: u64) -> Self {
        Case {
            name: name.to_owned(),
            title: title.to_owned(),
            image_mib,
            hosts,
            hostile: 0,
            up_mbit: None,
            down_mbit: None,
            loss_percent: 0.0,
            snooping: false,
            host: Vec::new(),
            racks: None,
            goal: None,
            goal_slow: None,
            goal_uplink: None,
        }
    }

    fn parse(name: &str, text: &str) -> Result<Self, CaseError> {
        let case: Case = toml::from_str(text).map_err(|cause| CaseError::Parse { name: name.to_owned(), cause })?;
        case.check()?;
        Ok(case)
    }

    fn check(&self) -> Result<(), CaseError> {
        let refuse = |problem: String| Err(CaseError::Contradiction { name: self.name.clone(), problem });
        if !(2..=MOST_HOSTS).contains(&self.hosts) {
            return refuse(format!("{} hosts; 2 to {MOST_HOSTS} are possible", self.hosts));
        }
        if self.hostile + 2 > self.hosts {
            return refuse(format!("{} of {} hosts are hostile; two at least must not be", self.hostile, self.hosts));
        }
        if let Some(other) = self.host.iter().find(|other| other.index >= self.hosts) {
            return refuse(format!("host {} is none of its {} hosts", other.index, self.hosts));
        }
        if let Some(racks) = &self.racks
            && racks.sizes.iter().sum::<usize>() != self.hosts
        {
            return refuse(format!("its racks hold {:?} of {} hosts", racks.sizes, self.hosts));
        }
        let losses = (0..self.hosts).map(|index| self.loss_percent(index));
        if let Some(loss) = losses.into_iter().find(|loss| !(0.0..50.0).contains(loss)) {
            return refuse(format!("{loss} % of packets lost; less than 50 is possible"));
        }
        Ok(())
    }

    /// Length of the image in bytes.
    pub(crate) fn image_bytes(&self) -> u64 {
        self.image_mib << 20
    }

    /// The hosts that take part, the source among them.
    pub(crate) fn members(&self) -> std::ops::Range<usize> {
        0..self.hosts - self.hostile
    }

    /// The hosts that fetch: all members but the source.
    pub(crate) fn receivers(&self) -> std::ops::Range<usize> {
        1..self.members().end
    }

    /// What host `index` can send, in Mbit/s.
    pub(crate) fn up_mbit(&self, index: usize) -> Option<f64> {
        self.other(index).and_then(|other| other.up_mbit).or(self.up_mbit)
    }

    /// What host `index` can receive, in Mbit/s.
    pub(crate) fn down_mbit(&self, index: usize) -> Option<f64> {
        self.other(index).and_then(|other| other.down_mbit).or(self.down_mbit)
    }

    /// How many of the packets that reach host `index` it loses, in percent.
    pub(crate) fn loss_percent(&self, index: usize) -> f64 {
        self.other(index).and_then(|other| other.loss_percent).unwrap_or(self.loss_percent)
    }

    /// The rack of host `index`: 0, which has the source, or 1.
    pub(crate) fn rack(&self, index: usize) -> usize {
        self.racks.as_ref().map_or(0, |racks| usize::from(index >= racks.sizes[0]))
    }

    /// Whether host `index` receives more slowly than most.
    pub(crate) fn is_slow(&self, index: usize) -> bool {
        matches!((self.down_mbit(index), self.down_mbit), (Some(own), Some(usual)) if own < usual)
    }

    /// The soonest that host `index` can have everything, in seconds; `None` if nothing bounds it.
    ///
    /// That is the fluid bound of Kumar and Ross over the hosts that receive at least as fast as this one: what the source
    /// can send, what the host (and its rack's uplink) can receive, and what all hosts can send together.
    pub(crate) fn bound_s(&self, index: usize) -> Option<f64> {
        let own = self.down_mbit(index);
        let at_least_as_fast =
            self.receivers().filter(|&other| self.down_mbit(other).unwrap_or(f64::MAX) >= own.unwrap_or(f64::MAX));
        let all_up: Option<f64> = self.members().map(|other| self.up_mbit(other)).sum();
        let uplink = self.racks.as_ref().filter(|_| self.rack(index) != 0).map(|racks| racks.uplink_mbit);
        let together = all_up.map(|up| up / at_least_as_fast.count() as f64);
        let rates = [self.up_mbit(0), own, uplink, together];
        let slowest = rates.into_iter().flatten().min_by(f64::total_cmp)?;
        Some((self.image_bytes() * 8) as f64 / (slowest * 1e6))
    }

    fn other(&self, index: usize) -> Option<&OtherHost> {
        self.host.iter().find(|other| other.index == index)
    }
}

/// What one /24 holds beside the lab's own services, with room to spare; two cores are far below it.
const MOST_HOSTS: usize = 64;

const FILES: &[(&str, &str)] = &[
    ("8x100", include_str!("cases/8x100.toml")),
    ("8x100-loss", include_str!("cases/8x100-loss.toml")),
    ("16x50", include_str!("cases/16x50.toml")),
    ("slow-host", include_str!("cases/slow-host.toml")),
    ("racks", include_str!("cases/racks.toml")),
    ("besieged", include_str!("cases/besieged.toml")),
    ("gang", include_str!("cases/gang.toml")),
    ("small", include_str!("cases/small.toml")),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn case(name: &str) -> Case {
        Case::select(&[name.to_owned()]).expect("it is built in").remove(0)
    }

    #[test]
    fn every_file_is_a_case_of_its_name() {
        for (case, (name, _)) in Case::all().expect("they parse").iter().zip(FILES) {
            assert_eq!(case.name, *name);
        }
    }

    #[test]
    fn equal_hosts_are_bound_by_the_source() {
        let bound = case("8x100").bound_s(3).expect("it is shaped");
        assert!((bound - 10.737).abs() < 0.001, "{bound}");
    }

    #[test]
    fn a_slow_host_has_a_bound_of_its_own_and_does_not_raise_that_of_the_others() {
        let case = case("slow-host");
        let (fast, slow) = (case.bound_s(1).expect("shaped"), case.bound_s(7).expect("shaped"));
        assert!((fast - 5.369).abs() < 0.001 && (slow - 26.844).abs() < 0.001, "{fast} {slow}");
        assert!(case.is_slow(7) && !case.is_slow(1));
    }

    #[test]
    fn hosts_that_send_little_are_bound_together() {
        let mut case = Case::unshaped("x", "x", 5, 100);
        assert!(case.bound_s(1).is_none());
        (case.up_mbit, case.down_mbit) = (Some(5.0), Some(1000.0));
        case.host = vec![OtherHost { index: 0, up_mbit: Some(100.0), down_mbit: None, loss_percent: None }];
        // The source alone would allow 100; all five send 120 together, for four copies.
        let bound = case.bound_s(1).expect("shaped");
        assert!((bound - (100 << 20) as f64 * 8.0 / 30e6).abs() < 1e-6, "{bound}");
    }

    #[test]
    fn a_host_can_lose_more_than_the_others() {
        let text = "name = 'x'\ntitle = 'x'\nimage_mib = 1\nhosts = 3\nloss_percent = 1\n[[host]]\nindex = 2\nloss_percent = 5\n";
        let case = Case::parse("x", text).expect("a case");
        assert_eq!([case.loss_percent(1), case.loss_percent(2)], [1.0, 5.0]);
        assert!(Case::parse("x", &text.replace("= 5", "= 80")).is_err());
    }

    #[test]
    fn a_rack_away_from_the_source_is_bound_by_its_uplink() {
        let mut case = case("racks");
        case.racks.as_mut().expect("it has racks").uplink_mbit = 50.0;
        let (near, far) = (case.bound_s(1).expect("shaped"), case.bound_s(7).expect("shaped"));
        assert!((far / near - 2.0).abs() < 1e-9);
    }
}
