//! Threads for what blocks: disk and hashing, away from the one thread that runs the network.
//!
//! A fixed number of threads, each taking the next job from one queue. What can be in the queue is bounded by who hands
//! jobs in: each waits for its job before it hands in the next.

use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// The threads. Clones share them; they end when the last clone is dropped and the queue is empty.
#[derive(Clone, Debug)]
pub(crate) struct Workers {
    queue: mpsc::Sender<Job>,
}

/// A thread could not be started.
#[derive(Debug, thiserror::Error)]
#[error("can't start a thread for disk work: {0}; is the limit of threads (ulimit -u, TasksMax=) too low?")]
pub struct StartWorkersError(#[from] std::io::Error);

impl Workers {
    /// Starts `count` threads, at least one, called `name`.
    pub(crate) fn start(name: &str, count: usize) -> Result<Self, StartWorkersError> {
        let (queue, jobs) = mpsc::channel::<Job>();
        let jobs = Arc::new(Mutex::new(jobs));
        for _ in 0..count.max(1) {
            let jobs = jobs.clone();
            thread::Builder::new().name(name.to_owned()).spawn(move || {
                loop {
                    let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(job) = job else { return };
                    job();
                }
            })?;
        }
        Ok(Workers { queue })
    }

    /// Runs `job` on one of the threads. The job runs even if nobody waits for its end any more.
    ///
    /// A job that panics panics here, too: it found an invariant of ours broken.
    pub(crate) async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        self.begin(job).await.expect("a job on a worker thread does not panic")
    }

    /// Queues `job`; its result comes by the receiver.
    pub(crate) fn begin<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> oneshot::Receiver<T> {
        let (done, result) = oneshot::channel();
        let job = move || {
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
            if let Ok(value) = ended {
                // Nobody waits any more: then nobody is told.
                let _ = done.send(value);
            }
        };
        self.queue.send(Box::new(job)).expect("worker threads live as long as their queue");
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn jobs_run_on_threads_of_their_own_and_survive_one_that_panics() {
        let workers = Workers::start("test", 2).unwrap();
        let here = thread::current().id();
        assert!(workers.begin(|| panic!("on purpose")).await.is_err());
        for number in 0..10 {
            let (there, got) = workers.run(move || (thread::current().id(), number)).await;
            assert_ne!(here, there);
            assert_eq!(got, number);
        }
    }
}
