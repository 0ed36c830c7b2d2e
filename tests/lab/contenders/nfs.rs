//! NFS: a server in user space (nfs-ganesha) at the source, a client in user space (libnfs' `nfs-cp`) at every other host.
//!
//! In its time: `nfs-cp` from its start to its end, which is mounting and copying. Not in it: starting the server. As with
//! HTTP, the clock starts with the first client. It is NFS 4 over TCP; nothing is encrypted or checked.

use serde_json::Value;

use super::program::{self, Socket};
use super::{Contender, ContenderError, Delivery, Stage};

/// nfs-ganesha over its VFS layer, and one `nfs-cp` a host.
#[derive(Debug, Default)]
pub(crate) struct Nfs;

impl Contender for Nfs {
    fn name(&self) -> &'static str {
        "nfs"
    }

    fn missing(&self) -> Option<String> {
        program::missing_packages(&[
            ("ganesha.nfsd", "nfs-ganesha"),
            ("/usr/lib/x86_64-linux-gnu/ganesha/libfsalvfs.so", "nfs-ganesha-vfs"),
            ("nfs-cp", "libnfs-utils"),
        ])
    }

    fn run(&self, stage: &Stage<'_>) -> Result<Delivery, ContenderError> {
        let source = stage.network.host(0);
        let folder = stage.sub_folder("nfs")?;
        stage.sub_folder("nfs-notes")?;
        program::link(stage.image, &folder.join("image"))?;
        let settings = stage.folder.join("ganesha.conf");
        program::write(&settings, &SETTINGS.replace("FOLDER", &folder.display().to_string()))?;
        let mut ganesha = source.command("ganesha.nfsd");
        ganesha.arg("-F").arg("-f").arg(&settings).args(["-L", "STDERR", "-N", "NIV_WARN"]);
        ganesha.arg("-p").arg(stage.folder.join("ganesha.pid"));
        let mut server = stage.start(Some(0), "ganesha", &mut ganesha)?;
        program::wait_to_listen(&mut server, Socket::Tcp, PORT)?;

        stage.start_clock()?;
        let mut clients = Vec::new();
        for host in stage.case.receivers() {
            let file = stage.host_folder(host)?.join("image");
            let mut copy = stage.network.host(host).command("nfs-cp");
            copy.arg(format!("nfs://{}/export/image?version=4", source.address)).arg(&file);
            clients.push((host, stage.start(Some(host), "nfs-cp", &mut copy)?, file));
        }
        Ok(Delivery { finished: stage.wait_for_ends(clients)?, details: Value::Null })
    }
}

/// NFS 4 alone, which needs no port mapper; no grace period, in which a server that was just started refuses to open
/// files for clients of its former life, of which there are none. What it notes about clients stays in the stage's folder.
const SETTINGS: &str = "NFS_Core_Param { Protocols = 4; NFS_Port = 2049; Enable_NLM = false; Enable_RQUOTA = false; }
NFSv4 { Graceless = true; RecoveryBackend = fs; RecoveryRoot = FOLDER-notes; Minor_Versions = 0; }
NFS_KRB5 { Active_krb5 = false; }
EXPORT {
    Export_Id = 1;
    Path = FOLDER;
    Pseudo = /export;
    Protocols = 4;
    Access_Type = RO;
    Squash = No_Root_Squash;
    SecType = sys;
    FSAL { Name = VFS; }
}
";
const PORT: u16 = 2049;
