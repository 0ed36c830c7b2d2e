//! Messages of the hash table, as a node asks another and is answered: KRPC of BEP 5, with items of BEP 44.
//!
//! Numbers of questions have four bytes and a put names its target, which is what the nodes of `mainline` want. Who asks has
//! an id of its own, which is not that of its node and begins with the cluster's
//! [pass](crate::lookup::ClusterSecret::pass): it is always at [`ASKER_AT`], where a node's kernel looks for it.

use core::net::{Ipv4Addr, SocketAddrV4};

use serde::{Deserialize, Serialize};
use serde_bytes::{ByteBuf, Bytes};

use crate::id::PublisherKey;
use crate::item::{Item, ItemSignature};
use crate::lookup::KEY_LEN;

/// What a node is called, and what is looked up: nodes are near to a key by the bits that they share with it.
pub type NodeId = [u8; KEY_LEN];
/// What tells a question's answer from others.
pub type Number = [u8; 4];

/// Where the asker's id is in a question, in bytes.
pub const ASKER_AT: usize = 12;

/// Longest message that is read. An answer with a value, hosts and nodes has less than 2 KB.
pub const LONGEST: usize = 2048;

/// What a node is asked.
#[derive(Clone, Copy, Debug)]
pub enum Question<'a> {
    /// Which hosts were announced under a key, and which nodes are near to it.
    Hosts(NodeId),
    /// Which item it has for a target, and which nodes are near to that.
    Item(NodeId),
    /// To keep that the asker is announced under a key, at its address and this port.
    Announce {
        /// The key.
        key: NodeId,
        /// The port.
        port: u16,
        /// What the node has told who asked it for hosts.
        token: &'a [u8],
    },
    /// To keep an item.
    Put {
        /// By what it is found.
        target: NodeId,
        /// The item.
        item: &'a Item,
        /// What the node has told who asked it for an item.
        token: &'a [u8],
    },
    /// Which nodes are near to this one, which asks and whom a node with this question comes to know.
    NearMe(NodeId),
}

/// What a node told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Told {
    /// What the node is called.
    pub id: NodeId,
    /// What it wants to see with what it is to keep.
    pub token: Option<Vec<u8>>,
    /// Nodes that it says to be near.
    pub nodes: Vec<(NodeId, SocketAddrV4)>,
    /// Hosts that it says to be announced.
    pub hosts: Vec<SocketAddrV4>,
    /// The item that it says to have. Nothing says yet that its publisher signed it.
    pub item: Option<ToldItem>,
}

/// An item without its salt, which nodes do not tell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ToldItem {
    publisher: PublisherKey,
    seq: u64,
    value: Vec<u8>,
    signature: ItemSignature,
}

/// An answer: what was told, or why not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// That of the question.
    pub number: Number,
    /// What was told, or in the node's words why it refuses.
    pub told: Result<Told, String>,
}

impl ToldItem {
    /// The item, if its publisher signed it with this salt.
    pub fn signed_with(self, salt: [u8; KEY_LEN]) -> Option<Item> {
        let ToldItem { publisher, seq, value, signature } = self;
        let item = Item { publisher, salt, seq, value, signature };
        item.verify().is_ok().then_some(item)
    }
}

impl Question<'_> {
    /// The question as `asker` sends it. Who asks so wants no questions where it asks from (BEP 43), but for
    /// [`Question::NearMe`].
    pub fn encode(&self, asker: &NodeId, number: Number) -> Vec<u8> {
        let (id, plain) = (Bytes::new(asker), Arguments::default());
        let (q, a) = match self {
            Question::Hosts(key) => ("get_peers", Arguments { info_hash: Some(Bytes::new(key)), ..plain }),
            Question::Item(target) => ("get", Arguments { target: Some(Bytes::new(target)), ..plain }),
            Question::NearMe(own) => ("find_node", Arguments { target: Some(Bytes::new(own)), ..plain }),
            Question::Announce { key, port, token } => {
                let (info_hash, token) = (Some(Bytes::new(key)), Some(Bytes::new(token)));
                ("announce_peer", Arguments { info_hash, port: Some(*port), token, ..plain })
            }
            Question::Put { target, item, token } => {
                let (target, token) = (Some(Bytes::new(target)), Some(Bytes::new(token)));
                let (k, sig) = (Bytes::new(item.publisher.as_bytes()), Bytes::new(item.signature.as_bytes()));
                let (salt, v, seq) = (Bytes::new(&item.salt), Bytes::new(&item.value), item.seq);
                let item =
                    Arguments { k: Some(k), sig: Some(sig), salt: Some(salt), v: Some(v), seq: Some(seq), ..plain };
                ("put", Arguments { target, token, ..item })
            }
        };
        let ro = u8::from(!matches!(self, Question::NearMe(_)));
        let asked = Asked { a: Arguments { id: Some(id), ..a }, q, ro, t: Bytes::new(&number), y: "q" };
        serde_bencode::to_bytes(&asked).expect("bytes and numbers are plain bencode")
    }
}

impl Answer {
    /// The answer that these bytes are; `None` if they are none, or longer than [`LONGEST`].
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > LONGEST || !is_shallow(bytes) {
            return None;
        }
        let message: Message = serde_bencode::from_bytes(bytes).ok()?;
        let number = Number::try_from(&message.t[..]).ok()?;
        let told = match (&message.y[..], message.r, message.e) {
            (b"r", Some(reply), _) => Ok(reply.read()?),
            (b"e", _, Some((code, why))) => Err(format!("{code}: {}", String::from_utf8_lossy(&why))),
            _ => return None,
        };
        Some(Answer { number, told })
    }
}

#[derive(Serialize)]
struct Asked<'a> {
    a: Arguments<'a>,
    q: &'static str,
    ro: u8,
    t: &'a Bytes,
    y: &'static str,
}

#[derive(Serialize, Default)]
struct Arguments<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    info_hash: Option<&'a Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    k: Option<&'a Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    salt: Option<&'a Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sig: Option<&'a Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'a Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    v: Option<&'a Bytes>,
}

#[derive(Deserialize)]
struct Message {
    t: ByteBuf,
    y: ByteBuf,
    r: Option<Reply>,
    e: Option<(i64, ByteBuf)>,
}

#[derive(Deserialize)]
struct Reply {
    id: ByteBuf,
    token: Option<ByteBuf>,
    nodes: Option<ByteBuf>,
    values: Option<Vec<ByteBuf>>,
    k: Option<ByteBuf>,
    seq: Option<i64>,
    sig: Option<ByteBuf>,
    v: Option<ByteBuf>,
}

impl Reply {
    fn read(self) -> Option<Told> {
        let id = NodeId::try_from(&self.id[..]).ok()?;
        let nodes = self.nodes.iter().flat_map(|nodes| nodes.chunks_exact(KEY_LEN + ADDR_LEN));
        let nodes = nodes.filter_map(|node| node.split_first_chunk().and_then(|(id, at)| Some((*id, addr(at)?))));
        let hosts = self.values.iter().flatten().filter_map(|host| addr(host));
        let (nodes, hosts) = (nodes.collect(), hosts.collect());
        Some(Told {
            id,
            nodes,
            hosts,
            token: self.token.map(ByteBuf::into_vec),
            item: item(self.k, self.seq, self.sig, self.v),
        })
    }
}

fn item(k: Option<ByteBuf>, seq: Option<i64>, sig: Option<ByteBuf>, v: Option<ByteBuf>) -> Option<ToldItem> {
    let publisher = PublisherKey::from_bytes(k?.as_slice().try_into().ok()?);
    let signature = ItemSignature::from_bytes(sig?.as_slice().try_into().ok()?);
    Some(ToldItem { publisher, seq: u64::try_from(seq?).ok()?, value: v?.into_vec(), signature })
}

/// Deepest nesting that an answer has need of: hosts in a list, in what is told, in the message.
const DEEPEST: usize = 8;

/// Whether lists and dictionaries are nested so little that reading them takes no stack to speak of.
fn is_shallow(mut bytes: &[u8]) -> bool {
    let mut depth = 0_usize;
    while let Some((&kind, rest)) = bytes.split_first() {
        let skipped = match kind {
            b'l' | b'd' => {
                depth += 1;
                Some(0)
            }
            b'e' => {
                depth = depth.saturating_sub(1);
                Some(0)
            }
            b'i' => rest.iter().position(|&byte| byte == b'e').map(|at| at + 1),
            _ => string_len(bytes).map(|len| len - 1),
        };
        let Some(rest) = skipped.and_then(|skipped| rest.get(skipped..)) else { return false };
        if depth > DEEPEST {
            return false;
        }
        bytes = rest;
    }
    true
}

/// How many bytes a text takes that these begin with, with its length before it.
fn string_len(bytes: &[u8]) -> Option<usize> {
    let colon = bytes.iter().position(|&byte| byte == b':')?;
    let len: usize = core::str::from_utf8(&bytes[..colon]).ok()?.parse().ok()?;
    len.checked_add(colon + 1)
}

/// An address in six bytes.
const ADDR_LEN: usize = 6;

fn addr(bytes: &[u8]) -> Option<SocketAddrV4> {
    let &[a, b, c, d, high, low] = bytes else { return None };
    Some(SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), u16::from_be_bytes([high, low])))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKER: NodeId = *b"abcdefghij0123456789";
    const KEY: NodeId = *b"mnopqrstuvwxyz123456";

    #[test]
    fn questions_are_as_bep_5_and_44_have_them() {
        let encoded = |question: Question<'_>| String::from_utf8(question.encode(&ASKER, *b"aabb")).expect("text");
        assert_eq!(
            encoded(Question::NearMe(KEY)),
            "d1:ad2:id20:abcdefghij01234567896:target20:mnopqrstuvwxyz123456e1:q9:find_node2:roi0e1:t4:aabb1:y1:qe"
        );
        assert_eq!(
            encoded(Question::Hosts(KEY)),
            "d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz123456e1:q9:get_peers2:roi1e1:t4:aabb1:y1:qe"
        );
        assert_eq!(
            encoded(Question::Announce { key: KEY, port: 6881, token: b"aoeusnth" }),
            "d1:ad2:id20:abcdefghij01234567899:info_hash20:mnopqrstuvwxyz1234564:porti6881e5:token8:aoeusnthe\
             1:q13:announce_peer2:roi1e1:t4:aabb1:y1:qe"
        );
    }

    #[test]
    fn the_askers_id_is_always_at_the_same_place() {
        let item = Item {
            publisher: PublisherKey::from_bytes([1; 32]),
            salt: KEY,
            seq: 4,
            value: vec![1; 500],
            signature: ItemSignature::from_bytes([2; 64]),
        };
        for question in [
            Question::Hosts(KEY),
            Question::Item(KEY),
            Question::NearMe(KEY),
            Question::Announce { key: KEY, port: 1, token: b"t" },
            Question::Put { target: KEY, item: &item, token: b"t" },
        ] {
            assert_eq!(question.encode(&ASKER, *b"aabb")[ASKER_AT..][..KEY_LEN], ASKER, "{question:?}");
        }
    }

    #[test]
    fn an_answer_gives_what_is_whole_in_it() {
        let decoded = Answer::decode(
            b"d1:rd2:id20:abcdefghij01234567895:nodes27:mnopqrstuvwxyz123456\x0a\x00\x00\x01\x1d\x15!5:token8:aoeusnth\
              6:valuesl6:\x0a\x00\x00\x02\x1d\x143:idhee1:t4:aabb1:y1:re",
        );
        let node = (KEY, SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 7445));
        let host = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), 7444);
        let token = Some(b"aoeusnth".to_vec());
        let told = Told { id: ASKER, token, nodes: vec![node], hosts: vec![host], item: None };
        assert_eq!(decoded, Some(Answer { number: *b"aabb", told: Ok(told) }));
        let refused = Answer::decode(b"d1:eli203e9:Bad tokene1:t4:aabb1:y1:ee").map(|answer| answer.told);
        assert_eq!(refused, Some(Err("203: Bad token".to_owned())));
    }

    #[test]
    fn what_is_nested_deeply_is_not_read_and_texts_are_not_looked_into() {
        let nested = |depth: usize| [vec![b'l'; depth], vec![b'e'; depth]].concat();
        assert!(is_shallow(&nested(DEEPEST)) && !is_shallow(&nested(DEEPEST + 1)));
        assert!(is_shallow(b"d1:a20:llllllllllllllllllll1:bi-7ee"));
        for broken in [&b"9:short"[..], b"i7", b"18446744073709551615:a", b"x", b"-1:a"] {
            assert!(!is_shallow(broken), "{}", String::from_utf8_lossy(broken));
        }
    }

    #[test]
    fn what_is_no_answer_is_none() {
        let deep = [&b"d1:x"[..], &vec![b'l'; LONGEST - 4]].concat();
        for bytes in [
            &b""[..],
            b"de",
            b"d1:rd2:id3:abce1:t4:aabb1:y1:re",
            b"d1:rd2:id20:abcdefghij0123456789e1:t2:aa1:y1:re",
            b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t4:aabb1:y1:qe",
            &deep,
            &vec![b'1'; LONGEST + 1],
        ] {
            assert_eq!(Answer::decode(bytes), None, "{}", String::from_utf8_lossy(bytes));
        }
    }
}
