"""An aiohttp application on an address, with the server options that all of ours share."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from p2pdist.model.members import Address

# A body that still goes out when the daemon ends has this long (operations, section 3).
SHUTDOWN_S: Final = 30.0


class HttpServer:
    def __init__(self, listen: Address, app: web.Application) -> None:
        self._listen = listen
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=SHUTDOWN_S
        )
        self._site: web.TCPSite | None = None

    async def start(self) -> Address:
        """Listen; return the bound address (port 0 takes a free one). Raises OSError."""
        await self._runner.setup()
        self._site = web.TCPSite(self._runner, self._listen.host, self._listen.port, backlog=1024)
        await self._site.start()
        host, port, *_ = self._runner.addresses[0]
        return Address(host, port)

    async def close(self) -> None:
        """Stop accepting, let bodies end within `SHUTDOWN_S`, close."""
        await self._runner.cleanup()
