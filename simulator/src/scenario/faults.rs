//! Who dies when: named hosts, whole racks, the tracker, and anybody by chance.
//!
//! The death of a rack's switch is the death of all its hosts: nobody reaches them, and they are back with what they had
//! stored. (A real agent would go on running and dial anew; here it starts again.)

use core::time::Duration;

use drover_protocol::rng::Rng;
use serde::Deserialize;

use super::raw::{seconds, value};
use super::{Absence, HostPlan, ScenarioError};

/// A host, or a rack with all its hosts.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDeath {
    /// 0 is the publisher.
    host: Option<usize>,
    rack: Option<usize>,
    at_s: f64,
    back_at_s: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawOutage {
    at_s: f64,
    back_at_s: Option<f64>,
}

/// In each second every host but the publisher dies with the same chance, and is back after `away_s`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawChurn {
    percent_per_min: f64,
    away_s: f64,
    until_s: f64,
}

pub(super) fn plan_deaths(deaths: &[RawDeath], hosts: &mut [HostPlan]) -> Result<(), ScenarioError> {
    for death in deaths {
        let absence = absence("deaths", death.at_s, death.back_at_s)?;
        match (death.host, death.rack) {
            (Some(host), None) if host < hosts.len() => plan_death(host, absence, hosts)?,
            (Some(host), None) => return value("deaths", format!("there is no host {host}")),
            (None, Some(rack)) => {
                let its: Vec<usize> = (0..hosts.len()).filter(|&host| hosts[host].rack == Some(rack)).collect();
                if its.is_empty() {
                    return value("deaths", format!("there is no rack {rack}"));
                }
                its.into_iter().try_for_each(|host| plan_death(host, absence, hosts))?;
            }
            _ => return value("deaths", "each is of either host or rack".to_owned()),
        }
    }
    Ok(())
}

fn plan_death(host: usize, absence: Absence, hosts: &mut [HostPlan]) -> Result<(), ScenarioError> {
    let plan = &mut hosts[host];
    if absence.from <= plan.arrives {
        return value("deaths", format!("host {host} must come, die and be back in this order"));
    }
    if plan.absences.last().is_some_and(|last| last.until.is_none_or(|until| absence.from <= until)) {
        return value("deaths", format!("host {host} is dead already; tell its deaths in order"));
    }
    plan.absences.push(absence);
    Ok(())
}

pub(super) fn plan_outages(key: &'static str, outages: &[RawOutage]) -> Result<Vec<Absence>, ScenarioError> {
    outages.iter().map(|outage| absence(key, outage.at_s, outage.back_at_s)).collect()
}

/// Hosts that die by name are left out.
pub(super) fn plan_churn(churn: &RawChurn, seed: u64, hosts: &mut [HostPlan]) -> Result<(), ScenarioError> {
    let chance = churn.percent_per_min / 100.0 / 60.0;
    if !(0.0..=1.0).contains(&chance) {
        return value("churn", format!("{} percent a minute is no rate of deaths", churn.percent_per_min));
    }
    let (away, until) = (seconds("away_s", churn.away_s)?, seconds("until_s", churn.until_s)?);
    let mut rng = Rng::seeded(seed ^ CHURN);
    for plan in hosts.iter_mut().skip(1).filter(|plan| plan.absences.is_empty()) {
        let mut at = plan.arrives;
        while at < until {
            at += SECOND;
            if rng.chance(chance) {
                plan.absences.push(Absence { from: at, until: Some(at + away) });
                at += away;
            }
        }
    }
    Ok(())
}

fn absence(key: &'static str, at_s: f64, back_at_s: Option<f64>) -> Result<Absence, ScenarioError> {
    let from = seconds("at_s", at_s)?;
    let until = back_at_s.map(|back_at| seconds("back_at_s", back_at)).transpose()?;
    if until.is_some_and(|until| until <= from) {
        return value(key, "death and return must come in this order".to_owned());
    }
    Ok(Absence { from, until })
}

const SECOND: Duration = Duration::from_secs(1);
/// Set apart from the seeds of the machines.
const CHURN: u64 = 0x6368_7572_6e00_0001;
