//! HTTP: nginx at the source, curl at every other host.
//!
//! In its time: curl from its start to its end, with the file written (and, as curl does, not synced). Not in it: starting
//! nginx. It has no receivers that could be told before the source begins, so the clock starts with the first curl.
//! Nothing is encrypted or checked.

use serde_json::Value;

use super::program::{self, Socket};
use super::{Contender, ContenderError, Delivery, Stage};

/// nginx with `sendfile`, and one curl a host.
#[derive(Debug, Default)]
pub(crate) struct Http;

impl Contender for Http {
    fn name(&self) -> &'static str {
        "http"
    }

    fn missing(&self) -> Option<String> {
        program::missing_packages(&[("nginx", "nginx-light"), ("curl", "curl")])
    }

    fn run(&self, stage: &Stage<'_>) -> Result<Delivery, ContenderError> {
        let source = stage.network.host(0);
        let folder = stage.sub_folder("nginx")?;
        program::link(stage.image, &folder.join("image"))?;
        let settings = folder.join("nginx.conf");
        program::write(&settings, &SETTINGS.replace("FOLDER", &folder.display().to_string()))?;
        let mut nginx = source.command("nginx");
        nginx.arg("-p").arg(&folder).arg("-c").arg(&settings);
        let mut server = stage.start(Some(0), "nginx", &mut nginx)?;
        program::wait_to_listen(&mut server, Socket::Tcp, PORT)?;

        stage.start_clock()?;
        let mut clients = Vec::new();
        for host in stage.case.receivers() {
            let file = stage.host_folder(host)?.join("image");
            let mut curl = stage.network.host(host).command("curl");
            curl.args(["--silent", "--show-error", "--fail", "--output"]).arg(&file);
            curl.arg(format!("http://{}/image", source.address));
            clients.push((host, stage.start(Some(host), "curl", &mut curl)?, file));
        }
        Ok(Delivery { finished: stage.wait_for_ends(clients)?, details: Value::Null })
    }
}

/// Debian's own settings as far as they touch the transfer, with every file in the folder of this run.
const SETTINGS: &str = "daemon off;
user root;
worker_processes auto;
pid FOLDER/nginx.pid;
error_log stderr;
events { worker_connections 768; }
http {
    sendfile on;
    tcp_nopush on;
    access_log off;
    client_body_temp_path FOLDER/body;
    proxy_temp_path FOLDER/proxy;
    fastcgi_temp_path FOLDER/fastcgi;
    uwsgi_temp_path FOLDER/uwsgi;
    scgi_temp_path FOLDER/scgi;
    server { listen 80; root FOLDER; }
}
";
const PORT: u16 = 80;
