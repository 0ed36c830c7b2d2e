//! Keys that nobody is taken for a member with, which trackers tell and `STATE/revoked.json` keeps, so that they count from
//! the first connection after a restart, also while no tracker answers.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use drover_link::durable;
use drover_protocol::revocation::Revocation;
use tokio::sync::Mutex;

use crate::transfer::workers::Workers;
use crate::transport::Links;

/// A file of ours is no longer: 4,096 keys take half of it.
const LONGEST: u64 = 1 << 20;

/// What is known of revocations. Clones share it.
#[derive(Clone)]
pub(crate) struct Revoked {
    path: Arc<PathBuf>,
    links: Links,
    /// Held while the file is written: two trackers may tell at the same time.
    writing: Arc<Mutex<()>>,
}

impl Revoked {
    /// As the file at `path` has it, if there is one; whoever is revoked is shut out from here on.
    pub(crate) fn load(path: PathBuf, links: Links) -> Self {
        match read(&path) {
            Ok(kept) => drop(links.revoke(&kept)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::error!(
                "{} can't be read: {error}; hosts that were revoked may come in until a tracker tells of them again",
                path.display()
            ),
        }
        Revoked { path: Arc::new(path), links, writing: Arc::default() }
    }

    /// A tracker told these. They count at once, and are kept then.
    pub(crate) async fn learn(&self, told: &[Revocation], workers: &Workers) {
        if self.links.revoke(told).is_empty() {
            return;
        }
        let _turn = self.writing.lock().await;
        let (path, all) = (Arc::clone(&self.path), self.links.revoked());
        let kept = workers.run(move || {
            let json = serde_json::to_vec_pretty(&all).expect("keys and times are plain JSON");
            durable::replace(&path, &json, durable::PRIVATE)
        });
        if let Err(error) = kept.await {
            tracing::error!("revocations are not kept, and forgotten by a restart until a tracker tells them: {error}");
        }
    }
}

fn read(path: &PathBuf) -> io::Result<Vec<Revocation>> {
    if std::fs::metadata(path)?.len() > LONGEST {
        return Err(io::Error::other("it is too long"));
    }
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}
