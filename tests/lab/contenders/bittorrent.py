"""Makes torrents and shares them with libtorrent, as a small script of a user would, tuned for a fast local network.

    bittorrent.py make IMAGE TRACKER PIECE_BYTES TORRENT    prints the info hash
    bittorrent.py seed TORRENT FOLDER ADDRESS               shares until it is ended
    bittorrent.py leech TORRENT FOLDER ADDRESS              the same; makes FOLDER.done when it has everything
"""

import pathlib
import sys

import libtorrent

# Beside libtorrent's own: what came out best of what NOTES.md lists. There is no rate limit.
SETTINGS = {
    # Everybody is served at once.
    "unchoke_slots_limit": -1,
    # Who asks the source for little at a time leaves more to be had from the others. The preset for fast seeders does the
    # opposite, and was slower.
    "request_queue_time": 1,
    "max_out_request_queue": 64,
    # On one wire TCP alone is faster than with uTP beside it, which yields to it.
    "enable_outgoing_utp": False,
    "enable_incoming_utp": False,
    # The tracker names everybody; nobody outside is to be asked.
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    # Plain text: 0 forces encryption, 2 does without.
    "out_enc_policy": 2,
    "in_enc_policy": 2,
}


def make(image, tracker, piece_bytes, torrent):
    image = pathlib.Path(image)
    files = libtorrent.file_storage()
    libtorrent.add_files(files, str(image))
    # aria2 knows version 1 alone.
    made = libtorrent.create_torrent(files, int(piece_bytes), libtorrent.create_torrent.v1_only)
    made.add_tracker(tracker)
    libtorrent.set_piece_hashes(made, str(image.parent))
    pathlib.Path(torrent).write_bytes(libtorrent.bencode(made.generate()))
    print(libtorrent.torrent_info(torrent).info_hash())


def share(torrent, folder, address, seeds):
    alerts = libtorrent.alert.category_t.status_notification
    session = libtorrent.session({**SETTINGS, "listen_interfaces": f"{address}:6881", "alert_mask": alerts})
    parameters = libtorrent.add_torrent_params()
    parameters.ti = libtorrent.torrent_info(torrent)
    parameters.save_path = folder
    # Started by us and not when its turn comes.
    parameters.flags &= ~(libtorrent.torrent_flags.auto_managed | libtorrent.torrent_flags.paused)
    if seeds:
        parameters.flags |= libtorrent.torrent_flags.seed_mode
    session.add_torrent(parameters)
    while True:
        session.wait_for_alert(1000)
        for alert in session.pop_alerts():
            if isinstance(alert, libtorrent.torrent_finished_alert) and not seeds:
                pathlib.Path(folder + ".done").touch()


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    if what == "make":
        make(*rest)
    else:
        share(*rest, seeds=what == "seed")
