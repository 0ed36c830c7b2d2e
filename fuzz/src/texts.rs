//! Texts and certificates: settings, requests at the control socket, tokens and what else is typed, X.509.

use std::io::Write;

use drover_agent::config::{Settings, Sources};
use drover_agent::control::api::{self, MasterRef};
use drover_link::ca::CertificateAuthority;
use drover_link::identity::{MemberKey, Role};
use drover_link::member::Member;
use drover_link::token::JoinToken;
use drover_protocol::id::{ImageId, PeerId, PublisherKey};
use drover_protocol::networks::Networks;
use drover_protocol::release::Name;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::NamedTempFile;

/// Any text as settings of a daemon and of a tracker: refused, or settings within their bounds.
pub(crate) fn settings(bytes: &[u8]) {
    let mut file = NamedTempFile::with_suffix(".toml").expect("a file");
    file.write_all(bytes).expect("a file");
    let path = file.path().to_owned();
    let sources = Sources { file: Some(path.clone()), environment: Vec::new(), flags: Vec::new() };
    if let Ok(settings) = Settings::load(&sources) {
        assert!(settings.io_threads > 0 && settings.max_connections > 0 && settings.upload_slots > 0);
        serde_json::to_string(&settings).expect("settings can be shown");
    }
    let over = drover_tracker::config::RawSettings::default();
    let _ = drover_tracker::config::Settings::layered(std::path::Path::new("/nowhere"), Some(&path), over);
}

pub(crate) fn settings_seeds() -> Vec<Vec<u8>> {
    let example = include_str!("../../agent/drover.example.toml");
    let switched_on =
        example.lines().map(|line| line.strip_prefix('#').filter(|line| line.contains(" = ")).unwrap_or(line));
    let switched_on = switched_on.collect::<Vec<_>>().join("\n");
    let tracker = "listen = \"0.0.0.0:7440\"\nhttp = \"off\"\ncertificate_life = \"7d\"\nnetworks = [\"10.0.0.0/8\"]\n";
    vec![example.as_bytes().to_vec(), switched_on.into_bytes(), tracker.as_bytes().to_vec()]
}

/// Any bytes as the body of each request at the control socket, and as what the daemon answers: an error, or something that
/// is written back the same.
pub(crate) fn control(bytes: &[u8]) {
    fn read<T: DeserializeOwned + Serialize + PartialEq + core::fmt::Debug>(body: &[u8]) {
        if let Ok(read) = serde_json::from_slice::<T>(body) {
            let again = serde_json::to_vec(&read).expect("what was read can be written");
            assert_eq!(serde_json::from_slice::<T>(&again).expect("and read"), read);
        }
    }
    let Some((kind, body)) = bytes.split_first() else { return };
    match kind % 8 {
        0 => read::<api::PostRelease>(body),
        1 => read::<api::Publish>(body),
        2 => read::<api::Fetch>(body),
        3 => read::<api::Verify>(body),
        4 => read::<api::Gc>(body),
        5 => read::<api::ProbeMulticast>(body),
        6 => read::<api::Line>(body),
        _ => {
            if let Ok(master) = core::str::from_utf8(body).unwrap_or_default().parse::<MasterRef>() {
                assert_eq!(master.to_string().parse::<MasterRef>().expect("as it is written"), master);
            }
        }
    }
}

pub(crate) fn control_seeds() -> Vec<Vec<u8>> {
    let seed = |kind: u8, body: &str| [vec![kind], body.as_bytes().to_vec()].concat();
    vec![
        seed(0, r#"{"release":{"body":[1],"publisher":"00","signatures":[2]}}"#),
        seed(1, r#"{"path":"/srv/disk.raw","name":"golden","mode":"copy"}"#),
        seed(2, r#"{"master":"golden@3","wait":true}"#),
        seed(3, r#"{"master":"golden"}"#),
        seed(4, r#"{"dry_run":true}"#),
        seed(5, r#"{"hosts":["host-1"]}"#),
        seed(6, r#"{"v":1,"event":"error","code":"failed","what":"x","why":"y"}"#),
        seed(7, "golden@3"),
    ]
}

/// Any text as each thing that is typed or read one word at a time: refused, or written back the same.
pub(crate) fn token(bytes: &[u8]) {
    let Ok(text) = core::str::from_utf8(bytes) else { return };
    if let Ok(token) = text.parse::<JoinToken>() {
        assert_eq!(token.to_string(), text.trim());
    }
    if let Ok(name) = text.parse::<Name>() {
        assert!(name.as_str() == text && !text.contains(['/', '\0']) && !text.starts_with('.') && text.len() <= 64);
    }
    if let Ok(role) = text.parse::<Role>() {
        assert_eq!(role.as_str(), text);
    }
    if drover_link::member::check_host_name(text).is_ok() {
        assert!(!text.contains(['/', '\0']) && !text.is_empty() && text.len() <= 64);
    }
    if let Ok(id) = text.parse::<ImageId>() {
        assert_eq!(id.to_string(), text);
    }
    let _ = (text.parse::<PeerId>(), text.parse::<PublisherKey>(), text.parse::<Networks>());
    let _ = drover_tracker::config::parse_duration(text);
}

pub(crate) fn token_seeds() -> Vec<Vec<u8>> {
    let id = "0123456789abcdef".repeat(4);
    let words = ["debian-13", "host-1.rack_2", "publisher", "10.0.0.0/8", "fd00::/8", "90s", &id, "drover-aebagbaf"];
    words.iter().map(|word| word.as_bytes().to_vec()).collect()
}

/// Any bytes as a certificate and as a request for one: refused, or a member with a name that a host can have.
pub(crate) fn certificate(bytes: &[u8]) {
    if let Ok(member) = Member::of_certificate(bytes) {
        drover_link::member::check_host_name(&member.name).expect("a name that a host can have");
    }
    let _ = CertificateAuthority::check(bytes);
}

pub(crate) fn certificate_seeds() -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ca = CertificateAuthority::create(folder.path(), "fuzz").expect("a CA");
    let request = MemberKey::generate().request();
    let certificate = ca.issue(&request, Role::Host, "host-1", 7).expect("a certificate");
    vec![request, certificate, ca.certificate().to_vec()]
}
