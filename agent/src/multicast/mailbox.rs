//! Messages to a thread that waits for a socket: a bounded queue, and a bell that `poll` hears.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

/// Messages that wait. A thread that is so far behind is stuck.
const QUEUE_LEN: usize = 1 << 16;

/// Where to post. Clones post to the same inbox.
#[derive(Clone, Debug)]
pub(crate) struct Mailbox<T> {
    queue: SyncSender<T>,
    bell: Arc<OwnedFd>,
}

/// What was posted.
#[derive(Debug)]
pub(crate) struct Inbox<T> {
    queue: Receiver<T>,
    bell: Arc<OwnedFd>,
}

/// What a thread waits for beside messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wish {
    /// Nothing but time.
    Nothing,
    /// That something can be read.
    Read,
    /// That something can be written.
    Write,
}

/// A mailbox and its inbox.
pub(crate) fn mailbox<T>() -> io::Result<(Mailbox<T>, Inbox<T>)> {
    let bell = Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?);
    let (sender, receiver) = sync_channel(QUEUE_LEN);
    Ok((Mailbox { queue: sender, bell: bell.clone() }, Inbox { queue: receiver, bell }))
}

impl<T> Mailbox<T> {
    /// Posts a message; `false` if the thread has ended or is stuck.
    pub(crate) fn post(&self, message: T) -> bool {
        match self.queue.try_send(message) {
            Ok(()) => {
                // Fails only if the bell rang four thousand million million times unheard.
                let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
                true
            }
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }
}

impl<T> Mailbox<T> {
    /// Whether the thread still runs.
    pub(crate) fn is_open(&self) -> bool {
        // The thread shares the bell.
        Arc::strong_count(&self.bell) > 1
    }
}

impl<T> Inbox<T> {
    /// The next message that was posted.
    pub(crate) fn next(&self) -> Option<T> {
        self.queue.try_recv().ok()
    }

    /// Waits until a message is posted, `socket` can do what is wished, or the time is over.
    pub(crate) fn wait(&self, socket: BorrowedFd<'_>, wish: Wish, most: Duration) -> io::Result<()> {
        let flags = if wish == Wish::Write { PollFlags::OUT } else { PollFlags::IN };
        let mut fds =
            [PollFd::from_borrowed_fd(self.bell.as_fd(), PollFlags::IN), PollFd::from_borrowed_fd(socket, flags)];
        // An error of a socket that nothing is wished of would end the waiting at once, again and again.
        let fds = &mut fds[..if wish == Wish::Nothing { 1 } else { 2 }];
        let most = Timespec { tv_sec: most.as_secs() as i64, tv_nsec: i64::from(most.subsec_nanos()) };
        match poll(fds, Some(&most)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if fds[0].revents().contains(PollFlags::IN) {
            // It is read by nobody else; whatever it holds, it is silent again.
            let _ = rustix::io::read(&self.bell, &mut [0; 8]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::thread;

    use super::*;

    #[test]
    fn a_message_wakes_who_waits_for_a_socket() {
        let (mailbox, inbox) = mailbox().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let waiting = thread::spawn(move || {
            inbox.wait(socket.as_fd(), Wish::Read, Duration::from_secs(60)).unwrap();
            inbox.next()
        });
        assert!(mailbox.post(7));
        assert_eq!(waiting.join().unwrap(), Some(7));
        assert!(!mailbox.post(8), "nobody reads it any more");
    }

    #[test]
    fn a_packet_wakes_who_waits_for_messages() {
        let (mailbox, inbox) = mailbox::<()>().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.send_to(b"x", socket.local_addr().unwrap()).unwrap();
        inbox.wait(socket.as_fd(), Wish::Read, Duration::from_secs(60)).unwrap();
        assert_eq!(socket.recv(&mut [0; 4]).unwrap(), 1);
        assert_eq!(inbox.next(), None);
        drop(mailbox);
    }
}
