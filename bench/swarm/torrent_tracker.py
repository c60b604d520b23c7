"""The smallest tracker that BitTorrent clients can find each other with (BEP 3, BEP 23).

torrent_tracker.py PORT
"""

from __future__ import annotations

import http.server
import socket
import sys
from urllib.parse import parse_qsl, urlsplit

from bench.swarm.images import bencode


class Tracker(http.server.BaseHTTPRequestHandler):
    peers: dict[str, bytes] = {}  # noqa: RUF012  # of the one swarm that there is

    def do_GET(self) -> None:
        query = dict(parse_qsl(urlsplit(self.path).query, encoding="latin-1"))
        me = query.get("peer_id", "")
        if query.get("event") == "stopped":
            self.peers.pop(me, None)
        else:
            port = int(query.get("port", "0")).to_bytes(2, "big")
            self.peers[me] = socket.inet_aton(self.client_address[0]) + port
        others = b"".join(address for peer, address in self.peers.items() if peer != me)
        body = bencode({"interval": 2, "min interval": 1, "peers": others})
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    address = ("0.0.0.0", int(sys.argv[1]))
    http.server.ThreadingHTTPServer(address, Tracker).serve_forever()
