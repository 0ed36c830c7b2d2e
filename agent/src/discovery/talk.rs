//! What one peer says about hosts, images and releases at large, heard at a bounded rate.

use std::collections::BTreeMap;
use std::time::Duration;

use drover_protocol::discovery::DiscoveryMessage;
use drover_protocol::hints::Source;
use drover_protocol::id::ImageId;
use tokio::time::Instant;

use super::gossip::Allowance;
use crate::transport::{Event, Link, Links};

/// A peer that asks the same more often is not answered, and of one that tells of hosts more often nothing is kept.
const AGAIN: Duration = Duration::from_secs(2);
/// Images that one peer may ask for within that time.
const IMAGES_MOST: usize = 256;

/// What a peer said lately.
#[derive(Debug)]
pub(crate) struct Talk {
    asked_hosts: Option<Instant>,
    told_hosts: Option<Instant>,
    asked_images: BTreeMap<ImageId, Instant>,
    releases: Allowance,
}

impl Default for Talk {
    fn default() -> Self {
        let releases = Allowance::full(Instant::now());
        Talk { asked_hosts: None, told_hosts: None, asked_images: BTreeMap::new(), releases }
    }
}

impl Talk {
    /// Acts on a message.
    pub(crate) async fn hear(&mut self, links: &Links, link: &Link, message: DiscoveryMessage) {
        let now = Instant::now();
        match message {
            DiscoveryMessage::AskHosts => {
                if is_due(&mut self.asked_hosts, now) {
                    links.tell_hosts(link);
                }
            }
            DiscoveryMessage::AskPeers { image } => {
                if self.may_ask(now, image)
                    && let Some(driver) = links.router().driver_of(image)
                {
                    // A driver that has just ended exchanges nothing.
                    let _ = driver.send(Event::AskedPeers(link.clone())).await;
                }
            }
            DiscoveryMessage::Hosts { peers } => {
                if is_due(&mut self.told_hosts, now) {
                    links.learn(&peers, Source::PeerExchange(link.peer()));
                }
            }
            DiscoveryMessage::Releases { releases } => links.gossip().hear(releases, &mut self.releases),
        }
    }

    fn may_ask(&mut self, now: Instant, image: ImageId) -> bool {
        self.asked_images.retain(|_, asked| now - *asked < AGAIN);
        if self.asked_images.len() >= IMAGES_MOST || self.asked_images.contains_key(&image) {
            return false;
        }
        self.asked_images.insert(image, now);
        true
    }
}

fn is_due(last: &mut Option<Instant>, now: Instant) -> bool {
    let due = last.is_none_or(|last| now - last >= AGAIN);
    if due {
        *last = Some(now);
    }
    due
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_answered_now_and_then_and_never_fills_memory() {
        let (mut talk, now) = (Talk::default(), Instant::now());
        let image = |number: u32| {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&number.to_be_bytes());
            ImageId::from_bytes(bytes)
        };
        assert!(talk.may_ask(now, image(0)) && !talk.may_ask(now, image(0)));
        assert_eq!((1..10_000).filter(|&number| talk.may_ask(now, image(number))).count(), IMAGES_MOST - 1);
        assert!(talk.may_ask(now + AGAIN, image(0)));
        let mut asked = None;
        assert!(is_due(&mut asked, now) && !is_due(&mut asked, now) && is_due(&mut asked, now + AGAIN));
    }
}
