//! One host: its disk, which outlives it, and what runs while it lives.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

use core::net::SocketAddr;

use drover_durability::{
    Access, Catalog, Disk, DiskError, Doing, Image, Layout, LoadError, NotDurable, begin, check_len, drop_journal,
    load_incoming, load_manifest, make_durable, move_to_masters, sweep_files, undo_move,
};
use drover_protocol::geometry::ChunkIndex;
use drover_protocol::hints::{AddressBook, Candidates, LookupPace, Strangers};
use drover_protocol::id::{ImageId, PeerId};
use drover_protocol::manifest::Manifest;
use drover_protocol::networks::Networks;
use drover_protocol::swarm::{RequestId, ServeId, Swarm};
use drover_protocol::time::Instant;

use super::disk::SimDisk;
use super::token::{TOKEN_LEN, Token};

/// A host, whether it runs or not.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) disk: SimDisk,
    /// Which life it lives: what belongs to an earlier one is void.
    pub(super) life: u32,
    /// While it runs.
    pub(super) run: Option<Running>,
    /// It does nothing until then.
    pub(super) suspended_until: Instant,
    /// Its disk takes until then for whatever it is asked.
    pub(super) stalled_until: Instant,
    /// How far its clock is off, in seconds.
    pub(super) clock_off_s: i64,
    /// It is gone for good.
    pub(super) is_dead: bool,
    /// Its uplink is free from then on.
    pub(super) uplink_free_at: Instant,
    /// The highest version that it accepted, over all its lives.
    pub(super) highest_version: u64,
    /// Chunks that a checkpoint made durable and that were not lost since by a fault that may lose them.
    pub(super) promised: BTreeSet<u32>,
    /// Whether its master was sealed.
    pub(super) was_sealed: bool,
}

/// What runs on a host.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) layout: Layout<SimDisk>,
    pub(super) catalog: Catalog<SimDisk>,
    pub(super) image: Option<Image<SimDisk>>,
    pub(super) swarm: Option<Swarm>,
    /// The links by which the swarm's peers are connected.
    pub(super) peers: BTreeMap<usize, usize>,
    /// Whom it shut out.
    pub(super) banned: BTreeSet<usize>,
    /// Where others are, as far as somebody told.
    pub(super) book: AddressBook,
    /// Who may have the manifest, until it is found.
    pub(super) search: Candidates,
    /// When to ask them again.
    pub(super) seek_at: Option<Instant>,
    /// Addresses that the hash table gave, and when it is asked again.
    pub(super) strangers: Strangers<()>,
    pub(super) lookups: Option<LookupPace>,
    /// Dials under way, by host.
    pub(super) dials: BTreeMap<usize, Dial>,
    pub(super) last_dial: u64,
    pub(super) requests: BTreeMap<RequestId, Asked>,
    pub(super) serves: BTreeMap<ServeId, Serve>,
    pub(super) last_serve: u64,
    /// For when the swarm's timer is set.
    pub(super) armed: Option<Instant>,
    pub(super) work: Work,
}

/// Where the driver is with making things durable.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// Whether a checkpoint, trial or seal is under way.
    pub(super) is_busy: bool,
    /// When the next one is due.
    pub(super) due: Option<Instant>,
    /// A chunk that the disk did not take.
    pub(super) refused: Option<(ChunkIndex, Token)>,
    pub(super) is_paused: bool,
    pub(super) is_sealing: bool,
    /// Losses of the disk that the swarm was not told of yet.
    pub(super) untold_losses: u32,
}

/// A dial of a peer: one of its addresses after the other.
#[derive(Debug)]
pub(super) struct Dial {
    /// Which dial it is: what belongs to another one is void.
    pub(super) number: u64,
    /// How often it went on.
    pub(super) step: u32,
    pub(super) tried: Vec<SocketAddr>,
    /// Addresses at which nobody has answered yet.
    pub(super) under_way: u32,
}

/// A request of ours.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) peer: usize,
    pub(super) chunks: Vec<u32>,
}

/// A request of a peer's.
#[derive(Debug)]
pub(super) struct Serve {
    pub(super) peer: usize,
    pub(super) link: usize,
    pub(super) request: RequestId,
    pub(super) chunks: VecDeque<u32>,
    pub(super) sent_bytes: u64,
    pub(super) is_granted: bool,
    /// When the last of it arrives: a stream keeps its order.
    pub(super) arrives: Instant,
}

/// What a store has of an image.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) layout: Layout<SimDisk>,
    pub(super) catalog: Catalog<SimDisk>,
    pub(super) image: Option<Image<SimDisk>>,
    /// What could not be read.
    pub(super) unreadable: Vec<String>,
}

/// Opens the store on a disk after whatever happened to it, in the order in which the agent does: half-made things are swept
/// away, a seal that was cut short is finished, and a journal's claims are believed.
pub(super) fn open(disk: &SimDisk, id: ImageId) -> Result<Opened, DiskError> {
    let layout = Layout::new(disk.clone(), Path::new("/"));
    layout.make()?;
    let mut unreadable = Vec::new();
    let mut image = None;
    for found in layout.sweep(&layout.masters())? {
        debug_assert_eq!(found, id, "there is one image");
        match load_master(disk, &layout, id) {
            Ok(master) => image = Some(master),
            Err(LoadError::Disk(error)) => return Err(error),
            Err(error) => unreadable.push(error.to_string()),
        }
    }
    for found in layout.sweep(&layout.incoming())? {
        let folder = layout.incoming_of(found);
        if image.is_some() {
            layout.discard(&folder)?;
            continue;
        }
        match load_incoming(disk, &folder, found) {
            Ok(incoming) => image = Some(incoming),
            // The disk may refuse for now only.
            Err(LoadError::Disk(error)) if error.source.kind() != std::io::ErrorKind::NotFound => return Err(error),
            Err(error) => {
                layout.discard(&folder)?;
                unreadable.push(error.to_string());
            }
        }
    }
    let catalog = Catalog::open(disk.clone(), layout.releases(), &mut unreadable)?;
    Ok(Opened { layout, catalog, image, unreadable })
}

fn load_master(disk: &SimDisk, layout: &Layout<SimDisk>, id: ImageId) -> Result<Image<SimDisk>, LoadError> {
    let folder = layout.master_of(id);
    sweep_files(disk, &folder)?;
    let manifest = load_manifest(disk, &folder, id)?;
    let path = folder.join(drover_durability::DISK);
    let file = disk.open(&path, Access::Read).doing("open", &path)?;
    check_len(&file, &path, &manifest)?;
    drop_journal(disk, &folder)?;
    Ok(Image::sealed(disk, id, manifest, file, path, &[]))
}

/// Lets an image come in: its file gets its length.
pub(super) fn begin_image(layout: &Layout<SimDisk>, manifest: &Manifest) -> Result<Image<SimDisk>, DiskError> {
    let folder = layout.incoming_of(manifest.image_id());
    if layout.disk().exists(&folder) {
        // A begin that failed after its rename.
        layout.discard(&folder)?;
    }
    begin(layout, manifest.clone(), |file, manifest| {
        drover_durability::DiskFile::set_len(file, manifest.geometry().len())
    })
}

/// Seals an image of which every chunk is held.
pub(super) fn seal(now: Instant, layout: &Layout<SimDisk>, image: &Image<SimDisk>) -> Result<(), NotDurable> {
    let is_placed = undo_move(layout, image.id())?;
    if !is_placed {
        make_durable(now, image)?;
    }
    image.become_sealed(|| {
        let (disk, id) = (layout.disk(), image.id());
        move_to_masters(layout, id)?;
        drop_journal(disk, &layout.master_of(id))?;
        let path = layout.master_of(id).join(drover_durability::DISK);
        let file = disk.open(&path, Access::Read).doing("open", &path)?;
        Ok((file, path))
    })
}

/// The chunks of an image whose place on the disk has not the right token, among those that it holds: what a verification
/// finds.
pub(super) fn damaged(image: &Image<SimDisk>) -> Vec<ChunkIndex> {
    let mut buffer = [0; TOKEN_LEN];
    let is_bad = |chunk: &ChunkIndex| {
        let read = image.read(*chunk, &mut buffer);
        read.is_err() || super::token::verify(image.manifest(), *chunk, Box::new(buffer)).is_none()
    };
    image.held().iter().filter(is_bad).collect()
}

/// The networks that the cluster is in.
pub(super) fn networks() -> Networks {
    "10.0.0.0/8".parse().expect("a network")
}

/// Who the host of this number is.
pub(super) fn peer_id(host: usize) -> PeerId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&(host as u64).to_be_bytes());
    PeerId::from_bytes(bytes)
}

/// Which host this is.
pub(super) fn host_of(peer: PeerId) -> usize {
    let (number, _) = peer.as_bytes().split_first_chunk().expect("an id is longer than a number");
    u64::from_be_bytes(*number) as usize
}
