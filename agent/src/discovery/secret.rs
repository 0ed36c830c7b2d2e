//! The secret of the cluster, which trackers tell and `STATE/cluster.secret` keeps: without it this host takes no part in
//! the hash table.
//!
//! A file that is damaged stops nothing: this host is told anew as soon as a tracker answers. Until then it says so.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use drover_link::durable;
use drover_protocol::lookup::ClusterSecret;
use tokio::sync::watch;

use crate::transfer::workers::Workers;

/// What is known of the secret. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Secret {
    path: Arc<PathBuf>,
    known: watch::Sender<Option<ClusterSecret>>,
    /// Why the file told nothing.
    problem: Option<Arc<str>>,
}

impl Secret {
    /// As the file at `path` has it, if there is one.
    pub(crate) fn load(path: PathBuf) -> Self {
        let read = read(&path);
        if let Err(problem) = &read {
            tracing::warn!("{problem}");
        }
        let problem = read.as_ref().err().map(|problem| problem.as_str().into());
        Secret { path: Arc::new(path), known: watch::Sender::new(read.unwrap_or_default()), problem }
    }

    /// A tracker told it.
    pub(crate) async fn learn(&self, secret: ClusterSecret, workers: &Workers) {
        let news = self.known.send_if_modified(|known| known.replace(secret) != Some(secret));
        if !news {
            return;
        }
        let path = Arc::clone(&self.path);
        let kept = workers.run(move || durable::replace(&path, secret.as_bytes(), durable::PRIVATE)).await;
        if let Err(error) = kept {
            tracing::warn!("the cluster's secret is not kept, and asked for again after a restart: {error}");
        }
    }

    /// The secret, as soon as it is known.
    pub(crate) async fn known(&self) -> ClusterSecret {
        let mut known = self.known.subscribe();
        let told = known.wait_for(Option::is_some).await.expect("this one has the sender");
        told.expect("waited for")
    }

    /// The secret, if it is known now.
    pub(crate) fn now(&self) -> Option<ClusterSecret> {
        *self.known.borrow()
    }

    /// Why it is not known, as long as nobody has told it.
    pub(crate) fn why_unknown(&self) -> &str {
        self.problem.as_deref().unwrap_or("no tracker has told the cluster's secret yet")
    }
}

/// What the file holds; nothing if there is none. The error says what is wrong with it, what follows and what to do.
fn read(path: &Path) -> Result<Option<ClusterSecret>, String> {
    let wrong = match std::fs::read(path) {
        Ok(bytes) => match <[u8; 32]>::try_from(bytes.as_slice()) {
            Ok(bytes) => return Ok(Some(ClusterSecret::from_bytes(bytes))),
            Err(_) => format!("{} is damaged: it has {} bytes instead of 32", path.display(), bytes.len()),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => format!("can't read {}: {error}", path.display()),
    };
    Err(format!(
        "{wrong}; without it this host takes no part in the DHT. A tracker that answers tells it anew; if none does, copy the \
         file from another host of the cluster and start the daemon again"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_damaged_secret_is_told_of_and_one_that_is_told_anew_takes_its_place() {
        let state = tempfile::tempdir().expect("a temporary folder");
        let path = state.path().join("cluster.secret");
        let load = || Secret::load(path.clone());
        assert!(load().why_unknown().contains("no tracker has told"), "a host that has just joined");
        for (damage, what) in [(&b""[..], "has 0 bytes"), (&[7; 31], "has 31 bytes"), (&[7; 33], "has 33 bytes")] {
            std::fs::write(&path, damage).expect("written");
            let secret = load();
            assert!(secret.why_unknown().contains(what) && secret.why_unknown().contains("copy the file"));
            assert_eq!(secret.now(), None);
        }
        let workers = Workers::start("test", 1).expect("a thread");
        let told = ClusterSecret::from_bytes([5; 32]);
        load().learn(told, &workers).await;
        assert_eq!(load().known().await, told);

        std::fs::remove_file(&path).and_then(|()| std::fs::create_dir(&path)).expect("a test's folder");
        assert!(load().why_unknown().contains("can't read"), "{}", load().why_unknown());
    }
}
