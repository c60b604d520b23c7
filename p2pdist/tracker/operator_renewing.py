"""Renews operators' certificates at a tracker's admin port: they have no control connection."""

from __future__ import annotations

import msgspec
from aiohttp import web

from p2pdist.model.control import REQUEST_BYTES_MAX
from p2pdist.model.identity import IdentityRole
from p2pdist.model.operator_renewal import PATH
from p2pdist.process.tls import CERTIFICATE
from p2pdist.tracker.job_callers import JobCallers, NotLetIn
from p2pdist.tracker.renewing import Renewer, refused


class RenewalHttp:
    def __init__(self, callers: JobCallers, renewer: Renewer | None) -> None:
        """`renewer`: None: this tracker has no CA to sign with."""
        self._callers = callers
        self._renewer = renewer

    def route(self) -> web.RouteDef:
        return web.post(PATH, self._renew)

    async def _renew(self, request: web.Request) -> web.Response:
        shown, peer = request.get_extra_info(CERTIFICATE), request.remote or ""
        try:
            caller = self._callers.judged(shown, "")
        except NotLetIn as error:
            return self._refuse(error.who, peer, str(error), error.status)
        who = caller.identity
        if shown is None or who is None or who.role is not IdentityRole.OPERATOR:
            text = "certificates of operators are renewed here, and of nobody else"
            return self._refuse(str(caller), peer, text, 403)
        body = await request.content.read(REQUEST_BYTES_MAX + 1)
        if self._renewer is None:
            text = "this tracker has no CA to sign with (tracker.ca_dir)"
            return self._refuse(str(caller), peer, text, 404)
        told = await self._renewer.for_shown(shown, body, peer=peer)
        return _answer(told, 200 if told.certificate else 403)

    def _refuse(self, who: str, peer: str, reason: str, status: int) -> web.Response:
        if self._renewer is not None:
            self._renewer.say_refused(who, peer, reason)
        return _answer(refused(0, reason), status)


def _answer(told: msgspec.Struct, status: int) -> web.Response:
    body = msgspec.json.encode(told) + b"\n"
    return web.Response(body=body, status=status, content_type="application/json")
