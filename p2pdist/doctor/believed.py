"""Does the daemon that runs here believe the secrets that the file holds?"""

from __future__ import annotations

from typing import Any

from p2pdist.doctor.findings import Finding, warned
from p2pdist.doctor.network import status_of
from p2pdist.errors import ConfigError
from p2pdist.model.cluster_secrets import shown
from p2pdist.process.identity import read_secrets
from p2pdist.settings import Settings

_FIX = (
    "a changed file is taken up within 15 s; a daemon whose service manager copied the file for it"
    " (LoadCredential=, a mount of one file) has to be restarted"
)


async def check_believed(settings: Settings, role: str) -> list[Finding]:
    """A warning where they differ; nothing where they do not, or one of them is not to be had,
    which is another check's fault."""
    own: Any = getattr(settings, role)
    status = await status_of(own.admin_listen)
    try:
        held = read_secrets(settings.cluster.secret_file)
        told = [str(each)[:64] for each in (status or {})["cluster_secret"]["fingerprints"]]
    except (ConfigError, KeyError, TypeError):  # an older version does not tell
        return []
    if not told or tuple(told) == held.fingerprints:
        return []
    text = f"the {role} that runs believes {shown(told)}; the file holds {held}"
    return [warned("cluster secret", text, _FIX)]
