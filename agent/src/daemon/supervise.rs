//! What the service manager is told: ready, how it goes, alive, stopping.
//!
//! "Alive" is said only by a task that has just seen the daemon's event loop turn (it runs in it) and a blocking thread
//! answer. A timer of its own would go on saying so for a daemon that is stuck.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use super::Daemon;
use crate::control::api::Phase;
use crate::quantity::Bytes;

/// Tells that the store is recovered and all sockets are bound.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Tells that shutdown has begun.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Tells how it goes, and that it goes, until dropped.
pub(super) async fn report(daemon: Daemon) {
    let watchdog = sd_notify::watchdog_enabled();
    let interval = watchdog.map_or(STATUS_INTERVAL, |limit| (limit / 3).min(STATUS_INTERVAL));
    let mut status_due = Instant::now();
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if watchdog.is_some() {
            match tokio::time::timeout(interval, tokio::task::spawn_blocking(|| {})).await {
                Ok(Ok(())) => tell(&[NotifyState::Watchdog]),
                _ => tracing::warn!("no blocking thread answers: all may wait for the disk"),
            }
        }
        if Instant::now() >= status_due {
            status_due = Instant::now() + STATUS_INTERVAL;
            tell(&[NotifyState::Status(&summary(&daemon))]);
        }
    }
}

fn summary(daemon: &Daemon) -> String {
    let status = daemon.status();
    let complete = status.transfers.iter().filter(|transfer| transfer.phase == Phase::Complete).count();
    let under_way = status.transfers.iter().filter(|transfer| transfer.phase != Phase::Complete).map(|transfer| {
        let name = transfer.names.first().cloned().unwrap_or_else(|| transfer.image.short());
        format!("; {name} {}, {} of {}", transfer.phase.word(), Bytes(transfer.held_bytes), Bytes(transfer.data_bytes))
    });
    let reachable = status.trackers.iter().filter(|tracker| tracker.reachable).count();
    let first = format!("{complete} masters, {reachable} of {} trackers", status.trackers.len());
    std::iter::once(first).chain(under_way).collect()
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!("the service manager can't be told: {error}");
    }
}

const STATUS_INTERVAL: Duration = Duration::from_secs(5);
