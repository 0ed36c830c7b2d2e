//! What `lvs` and `vgs` report, in JSON: volumes, groups, who rests on whom, how full what is.

use std::path::PathBuf;

use serde::Deserialize;

use crate::handover::base::{BadBase, THE_CLONE};
use crate::handover::disk::Lost;
use crate::handover::usage::Usage;

/// What `lvs` is asked for.
pub(super) const FIELDS: &str =
    "lv_name,lv_uuid,lv_attr,lv_size,lv_tags,origin,pool_lv,data_percent,metadata_percent,lv_active,lv_device_open";
/// What `vgs` is asked for.
pub(super) const GROUP_FIELDS: &str = "vg_name,vg_free,vg_extent_size";

/// Marks a copy of a master that was read and found wrong.
pub(super) const DAMAGED: &str = "drover-damaged";

/// What `lvs` says of a volume.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Volume {
    pub(super) lv_name: String,
    pub(super) lv_uuid: String,
    pub(super) lv_attr: String,
    pub(super) lv_size: String,
    pub(super) lv_tags: String,
    pub(super) origin: String,
    pub(super) pool_lv: String,
    pub(super) data_percent: String,
    pub(super) metadata_percent: String,
    pub(super) lv_active: String,
    pub(super) lv_device_open: String,
}

/// What `vgs` says of a group.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Group {
    pub(super) vg_name: String,
    pub(super) vg_free: String,
    pub(super) vg_extent_size: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Answer<T> {
    pub(super) report: Vec<T>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Volumes {
    pub(super) lv: Vec<Volume>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Groups {
    pub(super) vg: Vec<Group>,
}

impl Volumes {
    /// The volumes, also those that are hidden from people, whose names stand in brackets.
    pub(super) fn bare(self) -> impl Iterator<Item = Volume> {
        self.lv.into_iter().map(|mut volume| {
            volume.lv_name = volume.lv_name.trim_matches(['[', ']']).to_owned();
            volume
        })
    }
}

impl Volume {
    /// Whether the first letter of its attributes, its type, is this.
    pub(super) fn is(&self, kind: char) -> bool {
        self.lv_attr.starts_with(kind)
    }

    /// Whether it has this tag.
    pub(super) fn has_tag(&self, tag: &str) -> bool {
        self.lv_tags.split(',').any(|its| its == tag)
    }

    /// Whether a copy of a master was read and found wrong.
    pub(super) fn is_damaged(&self) -> bool {
        self.has_tag(DAMAGED)
    }

    /// How a clone is lost that rests on this copy of a master, if that is or may be damaged. lvm lets none of them go without
    /// all that rests on it.
    pub(super) fn lost(&self, path: PathBuf) -> Option<Lost> {
        let doubt = self.doubt()?;
        Some(if self.is_damaged() {
            let todo = "so is what it shows wherever it has nothing of its own: save what is needed of it and make a clone by \
                        another driver or in another group";
            Lost::Broken(BadBase { path, what: "was found damaged".to_owned(), todo: todo.to_owned() })
        } else {
            let todo = format!("`drover clone verify {THE_CLONE} --full` reads it and settles that");
            Lost::Doubted(BadBase { path, what: format!("may be damaged: {doubt}"), todo })
        })
    }

    /// Why a copy of a master may differ from it, as far as that shows without reading it.
    pub(super) fn doubt(&self) -> Option<&'static str> {
        if self.is_damaged() {
            return Some("it was found damaged");
        }
        (self.lv_attr.as_bytes().get(1) == Some(&b'w')).then_some("it can be written to")
    }
}

/// How full a classic snapshot is, or the fuller half of a thin volume's pool.
pub(super) fn usage_of(volume: &Volume, pool: Option<&Volume>) -> Option<Usage> {
    let percent = |text: &str| text.trim().parse::<f64>().ok();
    let Some(pool) = pool else {
        let fault = match volume.lv_attr.as_bytes().get(4) {
            Some(b'I' | b'S') => Some("Invalid"),
            Some(b'm' | b'M') => Some("Merge failed"),
            _ => None,
        };
        let percent = percent(&volume.data_percent).or(fault.map(|_| 100.0))?;
        return Some(Usage { of: "room", percent, fault });
    };
    let (data, metadata) = (percent(&pool.data_percent)?, percent(&pool.metadata_percent).unwrap_or(0.0));
    let (of, percent) = if metadata > data { ("pool metadata", metadata) } else { ("pool data", data) };
    // The ninth letter is the pool's health.
    let fault = match pool.lv_attr.as_bytes().get(8) {
        Some(b'D') => Some("Out of data"),
        Some(b'M') => Some("Metadata read-only"),
        Some(b'F') => Some("Failed"),
        _ => None,
    };
    Some(Usage { of, percent, fault })
}

/// Names of the volumes that have this one as their origin.
pub(super) fn dependants(volumes: &[Volume], name: &str) -> Vec<String> {
    volumes.iter().filter(|volume| volume.origin == name).map(|volume| volume.lv_name.clone()).collect()
}

/// A number as lvm prints it.
pub(super) fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As lvm 2.03.16 answered for a pool, an external origin, a thin clone and a full classic snapshot.
    const ANSWER: &str = r#"{"report": [{"lv": [
        {"lv_name":"[lvol0_pmspare]","lv_uuid":"of-lvol0_pmspare","lv_attr":"ewi-------","lv_size":"4194304","lv_tags":"","origin":"","pool_lv":"","data_percent":"","metadata_percent":"","lv_active":"","lv_device_open":""},
        {"lv_name":"base","lv_uuid":"of-base","lv_attr":"ori-------","lv_size":"67108864","lv_tags":"drover","origin":"","pool_lv":"","data_percent":"","metadata_percent":"","lv_active":"","lv_device_open":""},
        {"lv_name":"pool","lv_uuid":"of-pool","lv_attr":"twi-aotz--","lv_size":"33554432","lv_tags":"","origin":"","pool_lv":"","data_percent":"85.40","metadata_percent":"11.04","lv_active":"active","lv_device_open":"open"},
        {"lv_name":"c","lv_uuid":"of-c","lv_attr":"Vwi-a-tz--","lv_size":"67108864","lv_tags":"drover","origin":"base","pool_lv":"pool","data_percent":"0.00","metadata_percent":"","lv_active":"active","lv_device_open":""},
        {"lv_name":"s","lv_uuid":"of-s","lv_attr":"swi-I-s---","lv_size":"16777216","lv_tags":"","origin":"o","pool_lv":"","data_percent":"100.00","metadata_percent":"","lv_active":"active","lv_device_open":""}
    ]}]}"#;

    fn volumes() -> Vec<Volume> {
        let answer: Answer<Volumes> = serde_json::from_str(ANSWER).expect("an answer");
        answer.report.into_iter().flat_map(|report| report.lv).collect()
    }

    #[test]
    fn what_rests_on_an_origin_is_found() {
        assert_eq!(dependants(&volumes(), "base"), ["c"]);
        assert_eq!(dependants(&volumes(), "c"), Vec::<String>::new());
    }

    #[test]
    fn a_copy_of_a_master_that_is_marked_or_can_be_written_to_is_doubted() {
        let mut base = volumes().remove(1);
        let word = |base: &Volume| base.lost(PathBuf::new()).map(|lost| lost.word());
        assert_eq!((base.doubt(), word(&base)), (None, None));
        base.lv_tags = "drover,drover-damaged".to_owned();
        assert_eq!((base.doubt(), word(&base)), (Some("it was found damaged"), Some("broken")));
        let writable = Volume { lv_attr: "owi-------".to_owned(), lv_tags: "drover".to_owned(), ..base };
        assert_eq!((writable.doubt(), word(&writable)), (Some("it can be written to"), Some("doubted")));
    }

    #[test]
    fn fill_levels_are_those_of_the_room_or_of_the_pool() {
        let volumes = volumes();
        let thin = usage_of(&volumes[3], Some(&volumes[2])).expect("a level");
        assert_eq!(thin, Usage { of: "pool data", percent: 85.4, fault: None });
        assert!(thin.finding().is_some_and(|finding| finding.text.contains("85 % full")));
        let mut full = volumes[2].clone();
        full.lv_attr = "twi-aotzD-".to_owned();
        assert_eq!(usage_of(&volumes[3], Some(&full)).and_then(|usage| usage.fault), Some("Out of data"));
        assert_eq!(usage_of(&volumes[4], None).expect("a level").fault, Some("Invalid"));
        assert_eq!(usage_of(&volumes[1], None), None);
    }
}
