//! Asks other nodes: lookups, and what is to be kept by the nodes that are nearest.
//!
//! Each lookup has a socket of its own, so that an answer can't be taken for another's, and asks only for nodes in the
//! cluster's networks and those that the settings name. How far it goes is for [`Walk`] to say.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use drover_protocol::krpc::{Answer, LONGEST, NodeId, Number, Question, Told};
use drover_protocol::walk::Walk;
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep_until, timeout_at};

/// What was not answered after this time is asked once more, and given up after that time.
const AGAIN_AFTER: Duration = Duration::from_millis(700);
const SILENT_AFTER: Duration = Duration::from_secs(2);
/// What was told by then is all that there is.
const LOOKUP_MOST: Duration = Duration::from_secs(10);
/// Questions under way at a time.
const AT_ONCE: usize = 32;

/// The questions of one lookup.
pub(super) struct Asker {
    socket: UdpSocket,
    id: NodeId,
    under_way: BTreeMap<Number, Asked>,
}

struct Asked {
    node: SocketAddrV4,
    packet: Vec<u8>,
    at: Instant,
    is_again: bool,
}

/// What came of a question.
struct Outcome {
    node: SocketAddrV4,
    answer: Option<Answer>,
}

impl Asker {
    /// Asks from the address `from` with this id.
    pub(super) async fn new(from: Ipv4Addr, id: NodeId) -> io::Result<Self> {
        Ok(Asker { socket: UdpSocket::bind((from, 0)).await?, id, under_way: BTreeMap::new() })
    }

    /// Asks the same of all whom `walk` names, as far as `may_ask`, and gives what they told.
    pub(super) async fn walk(
        &mut self,
        walk: &mut Walk,
        question: Question<'_>,
        may_ask: impl Fn(&SocketAddrV4) -> bool,
        mut on_told: impl FnMut(SocketAddrV4, &Told),
    ) {
        let deadline = Instant::now() + LOOKUP_MOST;
        loop {
            while self.under_way.len() < AT_ONCE
                && let Some(node) = walk.next_question()
            {
                self.ask(node, question).await;
            }
            if self.under_way.is_empty() {
                return;
            }
            let Ok(Outcome { node, answer }) = timeout_at(deadline, self.next()).await else {
                self.under_way.clear();
                return;
            };
            match answer.map(|answer| answer.told) {
                Some(Ok(told)) => {
                    on_told(node, &told);
                    let named = told.nodes.into_iter().filter(|(_, node)| may_ask(node));
                    walk.handle_answer(node, &told.id, told.token, named);
                }
                Some(Err(_)) | None => walk.handle_silence(node),
            }
        }
    }

    /// Has these nodes keep what `question` makes of each one's token. The error says why none does.
    pub(super) async fn keep<'a>(
        &mut self,
        nodes: Vec<(SocketAddrV4, &'a [u8])>,
        question: impl Fn(&'a [u8]) -> Question<'a>,
    ) -> Result<(), String> {
        let mut kept = Err("no node answered".to_owned());
        for (node, token) in nodes {
            self.ask(node, question(token)).await;
        }
        while !self.under_way.is_empty() {
            match self.next().await.answer.map(|answer| answer.told) {
                Some(Ok(_)) => kept = Ok(()),
                Some(Err(refused)) => kept = kept.map_err(|_| format!("refused: {refused}")),
                None => {}
            }
        }
        kept
    }

    async fn ask(&mut self, node: SocketAddrV4, question: Question<'_>) {
        let mut number = Number::default();
        getrandom::fill(&mut number).expect("the kernel gives random bytes");
        let packet = question.encode(&self.id, number);
        self.send(&packet, node).await;
        self.under_way.insert(number, Asked { node, packet, at: Instant::now(), is_again: false });
    }

    /// What came of the next question of those under way.
    async fn next(&mut self) -> Outcome {
        let mut packet = [0; LONGEST + 1];
        loop {
            let (&number, first) =
                self.under_way.iter().min_by_key(|(_, asked)| asked.due()).expect("a question is under way");
            let (due, is_again, node) = (first.due(), first.is_again, first.node);
            tokio::select! {
                received = self.socket.recv_from(&mut packet) => {
                    // What is wrong may be over by the next packet; until then time goes on.
                    let Ok((len, from)) = received else { sleep_until(due).await; continue };
                    let Some(answer) = Answer::decode(&packet[..len]) else { continue };
                    if self.under_way.get(&answer.number).is_some_and(|asked| from == asked.node.into()) {
                        let node = self.under_way.remove(&answer.number).expect("it is there").node;
                        return Outcome { node, answer: Some(answer) };
                    }
                }
                () = sleep_until(due) => {
                    if is_again {
                        self.under_way.remove(&number);
                        return Outcome { node, answer: None };
                    }
                    let asked = self.under_way.get_mut(&number).expect("it is there");
                    asked.is_again = true;
                    let packet = asked.packet.clone();
                    self.send(&packet, node).await;
                }
            }
        }
    }

    /// Sends a packet; one that can't be sent is as good as lost.
    async fn send(&self, packet: &[u8], node: SocketAddrV4) {
        let _ = self.socket.send_to(packet, node).await;
    }
}

impl Asked {
    fn due(&self) -> Instant {
        self.at + if self.is_again { SILENT_AFTER } else { AGAIN_AFTER }
    }
}
