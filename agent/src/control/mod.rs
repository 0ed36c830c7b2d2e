//! The socket between the daemon and whoever commands it.
//!
//! HTTP/1.1 with JSON over the Unix socket `STATE/agent.sock` (mode 0660: the daemon's user and group). The CLI is its
//! first client and has no other way in; `curl --unix-socket STATE/agent.sock http://drover/v1/status` works as well.
//!
//! | request | body | answer |
//! |---|---|---|
//! | `GET /v1/status` | | [`api::Status`] |
//! | `GET /v1/masters` | | list of [`api::Master`] |
//! | `GET /v1/masters/{master}` | | [`api::Master`] |
//! | `DELETE /v1/masters/{master}` | | [`api::Removed`] |
//! | `GET /v1/releases/{name}` | | [`api::NextRelease`] |
//! | `POST /v1/releases` | [`api::PostRelease`] | [`api::Posted`] |
//! | `POST /v1/publish` | [`api::Publish`] | events, the last is `imported` or `error` |
//! | `POST /v1/fetch` | [`api::Fetch`] | events, the last is `fetched`, `started` or `error` |
//! | `POST /v1/verify` | [`api::Verify`] | events, the last is `verified` or `error` |
//! | `POST /v1/gc` | [`api::Gc`] | [`api::Collected`] |
//! | `POST /v1/multicast/probe` | [`api::ProbeMulticast`] | [`api::ProbedMulticast`] |
//!
//! `{master}` is `NAME`, `NAME@VERSION` or an image id ([`api::MasterRef`]). Events come as newline-delimited JSON
//! ([`api::Line`]), each as it happens. An error is a [`Problem`] with a matching HTTP status. Request bodies are
//! bounded. Fields are only ever added; a reader ignores those it does not know.

pub mod api;
pub mod client;
pub(crate) mod problem;
mod route;
pub(crate) mod server;

use std::path::{Path, PathBuf};

pub use problem::{Code, Problem};
pub use route::Route;

/// Where the socket of the daemon with this state folder is.
pub fn socket_path(state: &Path) -> PathBuf {
    state.join("agent.sock")
}

/// Keeps the folder of a socket open while its address is in use.
///
/// A socket's address holds at most 107 bytes, a state folder's path may be longer. Then the address goes through the
/// open folder in `/proc/self/fd`, which names the same file.
#[derive(Debug)]
pub struct SocketAddress {
    path: PathBuf,
    _folder: Option<std::fs::File>,
}

impl SocketAddress {
    /// The address of `file_name` in `folder`.
    pub fn new(folder: &Path, file_name: &str) -> std::io::Result<Self> {
        use std::os::fd::AsRawFd;
        use std::os::unix::ffi::OsStrExt;

        let path = folder.join(file_name);
        if path.as_os_str().as_bytes().len() <= LONGEST_SOCKET_PATH {
            return Ok(SocketAddress { path, _folder: None });
        }
        let folder = std::fs::File::open(folder)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/{file_name}", folder.as_raw_fd()));
        Ok(SocketAddress { path, _folder: Some(folder) })
    }

    /// A path short enough to bind or connect to, for as long as this lives.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// `sun_path` has 108 bytes, the last of which ends it.
const LONGEST_SOCKET_PATH: usize = 107;
