//! Answers of nodes of the hash table, and lookups that such answers drive.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};

use drover_protocol::krpc::{Answer, LONGEST, NodeId, Told};
use drover_protocol::walk::{NEAREST, QUESTIONS_MOST, Walk};

const TARGET: NodeId = [7; 20];
/// What a node shows may be long; here it is not looked at.
const HEADER: &[u8] = b"d1:rd2:id20:";

/// Any bytes as an answer, from which no more is read than was in it.
pub(crate) fn answer(bytes: &[u8]) {
    if let Some(Answer { told: Ok(Told { nodes, hosts, token, .. }), .. }) = Answer::decode(bytes) {
        assert!(bytes.len() <= LONGEST);
        let read = nodes.len() * 26 + hosts.len() * 6 + token.map_or(0, |token| token.len());
        assert!(read <= bytes.len(), "{read} of {} bytes", bytes.len());
    }
}

pub(crate) fn answer_seeds() -> Vec<Vec<u8>> {
    let node = [&[9; 20][..], &[10, 0, 0, 1, 29, 21]].concat();
    let whole =
        [HEADER, &[8; 20], b"5:nodes26:", &node, b"5:token4:abcd6:valuesl6:\x0a\x00\x00\x02\x1d\x14ee1:t4:aabb1:y1:re"];
    let item = [
        HEADER,
        &[8; 20],
        b"1:k32:",
        &[1; 32],
        b"5:nodes0:3:seqi4e3:sig64:",
        &[2; 64],
        b"5:token4:abcd1:v5:valuee1:t4:aabb1:y1:re",
    ];
    vec![whole.concat(), item.concat(), b"d1:eli203e9:Bad tokene1:t4:aabb1:y1:ee".to_vec()]
}

/// A lookup whose nodes answer as the bytes say: four of them are a node that is named or that is silent.
pub(crate) fn walk(bytes: &[u8]) {
    let mut walk = Walk::new(TARGET);
    let (begin, steps) = bytes.split_at(bytes.len().min(4));
    begin.iter().for_each(|&ip| walk.begin_at(node(ip, 0)));
    let (mut under_way, mut questions) = (VecDeque::new(), 0);
    let mut steps = steps.chunks_exact(4);
    loop {
        while under_way.len() < 32
            && let Some(asked) = walk.next_question()
        {
            questions += 1;
            under_way.push_back(asked);
        }
        let Some(asked) = under_way.pop_front() else { break };
        match steps.next() {
            Some(&[0..128, rank, ip, port]) => {
                let named = (0..60).map(|more| (near(rank, more), node(ip.wrapping_add(more), port)));
                walk.handle_answer(asked, &near(rank, ip), Some(vec![port]), named);
            }
            _ => walk.handle_silence(asked),
        }
    }
    assert!(questions <= QUESTIONS_MOST + begin.len(), "{questions} questions");
    assert!(walk.nearest().len() <= NEAREST);
}

pub(crate) fn walk_seeds() -> Vec<Vec<u8>> {
    let honest = (0..32).flat_map(|number: u8| [1, number, number, 0]);
    let crowd = (0..64).flat_map(|number: u8| [1, 0, 1, number]);
    let begin = [1, 2, 3, 4];
    vec![begin.into_iter().chain(honest).collect(), begin.into_iter().chain(crowd).collect()]
}

fn node(ip: u8, port: u8) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, ip), 7445 + u16::from(port))
}

fn near(rank: u8, more: u8) -> NodeId {
    let mut id = TARGET;
    (id[18], id[19]) = (rank, more);
    id
}
