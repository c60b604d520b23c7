"""One host of a torrent, by libtorrent's Python binding; run by the interpreter of its package.

    libtorrent_host.py fetch|seed TORRENT DIRECTORY PORT

`fetch` writes the time at which it had everything into the file `done`, and then seeds as well.
Its settings are its own, but that it uses TCP as the others do (its own protocol over UDP took
four times the CPU), and no way to find hosts other than the torrent's tracker.
"""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path

POLL_MS = 100


def main() -> None:
    what, torrent, directory, port = sys.argv[1:]
    lt = importlib.import_module("libtorrent")
    other_ways = "enable_dht", "enable_lsd", "enable_upnp", "enable_natpmp"
    over_udp = "enable_outgoing_utp", "enable_incoming_utp"
    off = dict.fromkeys((*other_ways, *over_udp), False)
    session = lt.session({"listen_interfaces": f"0.0.0.0:{port}", **off})
    Path(directory).mkdir(exist_ok=True)
    handle = session.add_torrent({"ti": lt.torrent_info(torrent), "save_path": directory})
    told = what == "seed"
    while True:
        session.wait_for_alert(POLL_MS)
        session.pop_alerts()
        if not told and handle.status().is_seeding:
            Path("done").write_text(f"{time.time():.6f}\n")  # noqa: TID251  # as `date` of the others
            told = True


if __name__ == "__main__":
    main()
