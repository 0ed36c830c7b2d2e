//! Asks other nodes: lookups, and what is to be kept by the nodes that are nearest.
//!
//! Each lookup has a socket of its own, so that an answer can't be taken for another's, and asks only for nodes in the
//! cluster's networks and those that the settings name. How far it goes is for [`Walk`] to say. Lookups that are under way at
//! the same time tell each other who is silent: a node that nobody has heard of is asked by one of them, and the others wait
//! for what comes of it.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use drover_protocol::krpc::{Answer, LONGEST, NodeId, Number, Question, Told};
use drover_protocol::walk::Walk;
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::contacts::Contacts;

/// What was not answered after this time is asked once more, and given up after that time.
const AGAIN_AFTER: Duration = Duration::from_millis(700);
pub(super) const SILENT_AFTER: Duration = Duration::from_secs(2);
/// How soon it is looked what came of a node that another lookup asks.
const LOOK_AFTER: Duration = Duration::from_millis(100);
/// What was told by then is all that there is.
const LOOKUP_MOST: Duration = Duration::from_secs(10);
/// Questions under way at a time.
const AT_ONCE: usize = 32;

/// The questions of one lookup.
pub(super) struct Asker {
    socket: UdpSocket,
    id: NodeId,
    contacts: Arc<Mutex<Contacts>>,
    under_way: BTreeMap<Number, Pending>,
}

/// A question.
struct Pending {
    node: SocketAddrV4,
    packet: Vec<u8>,
    state: State,
    /// When it came to be in this state, but for [`State::AskedAgain`], which counts as from the first packet.
    since: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Another lookup asks the node.
    Waiting,
    Asked,
    AskedAgain,
}

/// What came of a question.
struct Outcome {
    node: SocketAddrV4,
    answer: Option<Answer>,
}

impl Asker {
    /// Asks from the address `from` with this id.
    pub(super) async fn new(from: Ipv4Addr, id: NodeId, contacts: Arc<Mutex<Contacts>>) -> io::Result<Self> {
        Ok(Asker { socket: UdpSocket::bind((from, 0)).await?, id, contacts, under_way: BTreeMap::new() })
    }

    /// Asks the same of all whom `walk` names, those that others named only where they `may_be`, and gives what they told.
    pub(super) async fn walk(
        &mut self,
        walk: &mut Walk,
        question: Question<'_>,
        may_be: impl Fn(&SocketAddrV4) -> bool,
        mut on_told: impl FnMut(SocketAddrV4, &Told),
    ) {
        let deadline = Instant::now() + LOOKUP_MOST;
        loop {
            while self.under_way.len() < AT_ONCE
                && let Some(node) = walk.next_question()
            {
                if walk.is_named(&node) && self.contacts().was_silent(Instant::now(), &node) {
                    walk.handle_silence(node);
                } else {
                    self.ask(node, question).await;
                }
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
                    let now = Instant::now();
                    let may_ask = |node: &SocketAddrV4| may_be(node) && !self.contacts().was_silent(now, node);
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
        let mut pending = Pending { node, packet, state: State::Waiting, since: Instant::now() };
        self.ask_in_turn(&mut pending).await;
        self.under_way.insert(number, pending);
    }

    /// Sends the first packet of a question unless another lookup asks the same node.
    async fn ask_in_turn(&self, pending: &mut Pending) {
        pending.since = Instant::now();
        if self.contacts().begin_asking(pending.since, pending.node) {
            pending.state = State::Asked;
            self.send(&pending.packet, pending.node).await;
        }
    }

    /// What came of the next question of those under way.
    async fn next(&mut self) -> Outcome {
        let mut packet = [0; LONGEST + 1];
        loop {
            let (&number, first) =
                self.under_way.iter().min_by_key(|(_, pending)| pending.due()).expect("a question is under way");
            let due = first.due();
            tokio::select! {
                // What has come counts before what is late: this process may have stood still.
                biased;
                received = self.socket.recv_from(&mut packet) => {
                    // What is wrong may be over by the next packet; until then time goes on.
                    let Ok((len, from)) = received else { sleep_until(due).await; continue };
                    let Some(answer) = Answer::decode(&packet[..len]) else { continue };
                    if self.under_way.get(&answer.number).is_some_and(|pending| from == pending.node.into()) {
                        let node = self.under_way.remove(&answer.number).expect("it is there").node;
                        self.contacts().heard(&node);
                        return Outcome { node, answer: Some(answer) };
                    }
                }
                () = sleep_until(due) => {
                    let mut pending = self.under_way.remove(&number).expect("it is there");
                    if self.is_silent(&mut pending).await {
                        return Outcome { node: pending.node, answer: None };
                    }
                    self.under_way.insert(number, pending);
                }
            }
        }
    }

    /// What is due of a question: to ask, to ask again, or to see that there is no answer.
    async fn is_silent(&self, pending: &mut Pending) -> bool {
        let (now, node) = (Instant::now(), pending.node);
        match pending.state {
            State::Waiting => {
                if !self.contacts().is_asked(now, &node) && self.contacts().was_silent(now, &node) {
                    return true;
                }
                self.ask_in_turn(pending).await;
            }
            State::Asked => {
                pending.state = State::AskedAgain;
                self.send(&pending.packet, node).await;
            }
            State::AskedAgain => {
                self.contacts().silent(now, node);
                return true;
            }
        }
        false
    }

    /// Sends a packet; one that can't be sent is as good as lost.
    async fn send(&self, packet: &[u8], node: SocketAddrV4) {
        let _ = self.socket.send_to(packet, node).await;
    }

    fn contacts(&self) -> MutexGuard<'_, Contacts> {
        self.contacts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending {
    fn due(&self) -> Instant {
        self.since
            + match self.state {
                State::Waiting => LOOK_AFTER,
                State::Asked => AGAIN_AFTER,
                State::AskedAgain => SILENT_AFTER,
            }
    }
}
