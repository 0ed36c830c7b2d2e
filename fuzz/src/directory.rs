//! Any hosts that announce anything, at any time, to a tracker's directory: what it hands out keeps its bounds and names
//! nobody who did not announce, and what it counts is what it holds.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::collections::BTreeSet;

use drover_protocol::announce::{Announce, MAX_PEERS_HANDED_OUT, SwarmAnnounce};
use drover_protocol::directory::{Directory, DirectoryConfig};
use drover_protocol::id::{ImageId, PeerId};
use drover_protocol::time::Instant;

const STEP_LEN: usize = 12;

pub(crate) fn run(bytes: &[u8]) {
    let mut directory = Directory::new(DirectoryConfig::default(), 1);
    let (mut now, mut announced) = (Instant::START, BTreeSet::new());
    for step in bytes.chunks_exact(STEP_LEN) {
        now = now + Duration::from_millis(u64::from(step[0]) * u64::from(step[1]));
        let peer = PeerId::from_bytes([step[2]; 32]);
        match step[3] % 8 {
            0 => directory.handle_leave(now, peer),
            1 => directory.handle_timeout(now),
            _ => {
                let announce = announce(step);
                announced.insert(peer);
                let observed = IpAddr::from([10, 0, step[8], step[9]]);
                let reply = directory.handle_announce(now, peer, observed, &announce);
                assert_eq!(reply.swarms.len(), announce.swarms.len());
                for (swarm, asked) in reply.swarms.iter().zip(&announce.swarms) {
                    assert!(swarm.image == asked.image);
                    assert!(swarm.peers.len() <= usize::from(asked.want_peers).min(MAX_PEERS_HANDED_OUT));
                    let handed_out: BTreeSet<PeerId> = swarm.peers.iter().map(|about| about.peer).collect();
                    assert!(handed_out.len() == swarm.peers.len() && !handed_out.contains(&peer));
                    assert!(handed_out.is_subset(&announced), "nobody is made up");
                }
            }
        }
        for change in directory.poll_changes(now) {
            assert!(change.cohort == directory.cohort(change.image));
        }
        let swarms: Vec<_> = directory.swarms().collect();
        for (image, cohort) in swarms {
            assert_eq!((cohort.seeders + cohort.leechers) as usize, directory.hosts(image).count());
            assert!(cohort.held_permille <= 1000);
        }
    }
}

fn announce(step: &[u8]) -> Announce {
    let swarm = |at: usize| SwarmAnnounce {
        image: ImageId::from_bytes([step[4].wrapping_add(at as u8) % 8; 32]),
        held_chunks: u32::from(step[5]),
        data_chunks: u32::from(step[6]),
        want_peers: u16::from(step[7]),
        leaving: step[3] & 64 != 0,
    };
    let listen = SocketAddr::from(([step[8], 0, step[9], step[10]], u16::from_le_bytes([step[10], step[11]])));
    Announce {
        listen: vec![listen; usize::from(step[11] % 9)],
        rack: (!step[11].is_multiple_of(3)).then(|| format!("r{}", step[10] % 4)),
        swarms: (0..usize::from(step[3] >> 3) % 5).map(swarm).collect(),
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let host = |number: u8, held: u8| [10, 10, number, 0x0a, 1, held, 9, 20, 10, number, 20, 29];
    let fleet = (1..12).flat_map(|number| host(number, if number == 1 { 9 } else { number % 9 })).collect();
    vec![fleet, [host(1, 9), host(2, 0), [255, 255, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0], host(2, 9)].concat()]
}
