//! The secret of the cluster, which trackers tell and `STATE/cluster.secret` keeps: without it this host takes no part in
//! the hash table.

use std::path::PathBuf;
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
}

impl Secret {
    /// As the file at `path` has it, if there is one.
    pub(crate) fn load(path: PathBuf) -> Self {
        let read = std::fs::read(&path).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        Secret { path: Arc::new(path), known: watch::Sender::new(read.map(ClusterSecret::from_bytes)) }
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

    /// Changes as it becomes known.
    pub(crate) fn watch(&self) -> watch::Receiver<Option<ClusterSecret>> {
        self.known.subscribe()
    }
}
