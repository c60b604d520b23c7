"""Lists of tags and of what refers to a manifest; nothing of them is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from p2pdist.errors import UpstreamError
from p2pdist.model.ids import Digest, digest_of
from p2pdist.oci.manifest import OCI_INDEX
from p2pdist.oci.names import ImageName
from p2pdist.registry.ports import Manifest, TagPage
from p2pdist.registry.reading.client import BadAnswer, UpstreamClient, UpstreamRefusal
from p2pdist.registry_proxy.asking import Asking
from p2pdist.registry_proxy.core.referrers import fallback_tag, merge_referrers
from p2pdist.registry_proxy.core.verdicts import list_refusal
from p2pdist.registry_proxy.parents import PARENT_S, Parents


class ListService:
    """Asks the parents, then upstream. Raises RegistryError where there is no list."""

    def __init__(
        self,
        upstream: UpstreamClient,
        parents: Parents,
        asking: Asking,
        check_servable: Callable[[ImageName], None],
    ) -> None:
        self._upstream = upstream
        self._parents = parents
        self._asking = asking
        self._check_servable = check_servable

    async def tags(self, name: ImageName, query: str) -> TagPage:
        self._check_servable(name)

        async def ask() -> TagPage:
            told = await self._parents.first(lambda p: p.tags(name, query, timeout_s=PARENT_S))
            return told or await self._upstream.tags(name, query)

        try:
            return await self._asking.outside(ask, answer_kept=False)
        except UpstreamError as error:
            raise list_refusal(error, name.upstream) from error

    async def referrers(
        self, name: ImageName, digest: Digest, artifact_type: str | None
    ) -> Manifest:
        """Return one index over all that refers to `digest`, by the API or by the tag schema."""
        self._check_servable(name)

        async def ask() -> Manifest:
            told = await self._parents.first(
                lambda p: p.referrers(name, digest, artifact_type, timeout_s=PARENT_S)
            )
            return told or await self._referrers(name, digest, artifact_type)

        try:
            return await self._asking.outside(ask, answer_kept=False)
        except UpstreamError as error:
            raise list_refusal(error, name.upstream) from error
        except ValueError as error:
            raise list_refusal(BadAnswer(str(error)), name.upstream) from error

    async def _referrers(
        self, name: ImageName, digest: Digest, artifact_type: str | None
    ) -> Manifest:
        pages = await self._referrer_pages(name, digest, artifact_type)
        body = await asyncio.to_thread(merge_referrers, pages, artifact_type)
        return Manifest(await asyncio.to_thread(digest_of, body), OCI_INDEX, body)

    async def _referrer_pages(
        self, name: ImageName, digest: Digest, artifact_type: str | None
    ) -> list[bytes]:
        try:
            return await self._upstream.referrers(name, digest, artifact_type)
        except UpstreamError as error:
            if error.status != 404:
                raise
        try:
            return [(await self._upstream.get_manifest(name, fallback_tag(digest))).body]
        except UpstreamRefusal as error:
            if error.status == 404 and error.code != "NAME_UNKNOWN":
                return []
            raise
