"""Options that several verbs share: the configuration file and a flag for every setting."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import click

from p2pdist.settings import all_leaves
from p2pdist.settings_kinds import PATH, Kind
from p2pdist.settings_load import Loaded, load_settings

F = TypeVar("F", bound=Callable[..., Any])

OPERATOR_DIR: Final = "~/.config/p2pdist/operator"
"""Where the certificate of an operator is looked for, and written to."""


def config_option(command: F) -> F:
    return click.option(
        "--config",
        "-c",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Configuration file (TOML); else P2PDIST_CONFIG, else /etc/p2pdist/config.toml.",
    )(command)


def setting_flags(
    *sections: str, aliases: Mapping[str, str] = MappingProxyType({})
) -> Callable[[F], F]:
    """Add one flag for each setting of `sections`, named `--section-key`; `aliases`: further names
    of some (`section.key`)."""

    def decorate(command: F) -> F:
        for leaf in reversed([leaf for leaf in all_leaves() if leaf.section in sections]):
            command = click.option(
                leaf.flag,
                *filter(None, [aliases.get(leaf.name)]),
                _parameter(leaf.section, leaf.key),
                type=click.Path() if leaf.kind is PATH else None,
                metavar=leaf.kind.metavar,
                shell_complete=_choices(leaf.kind),
                multiple=leaf.kind.is_list,
                help=leaf.help + (" May be repeated." if leaf.kind.is_list else ""),
            )(command)
        return command

    return decorate


def load_from_flags(config: Path | None, flags: dict[str, Any]) -> Loaded:
    """Load settings under the flags that were given."""
    names = {_parameter(leaf.section, leaf.key): leaf.name for leaf in all_leaves()}
    given = {names[k]: v for k, v in flags.items() if k in names and v not in (None, ())}
    return load_settings(config, flags=given)


def checked_endpoint(context: click.Context, option: click.Parameter, text: str) -> str:
    """Return what is the URL of a registry; raise BadParameter for anything else."""
    try:
        parts = urlsplit(text)
        if parts.scheme in ("http", "https") and parts.hostname:
            return text
    except ValueError:  # an IPv6 address without its bracket
        pass
    near = f"; did you mean http://{text}?" if text and "//" not in text else ""
    raise click.BadParameter(f"{text!r} is no URL, such as http://HOST:PORT{near}")


def _choices(kind: Kind) -> Callable[[click.Context, click.Parameter, str], list[str]] | None:
    """Return what completes a value; none where there is no choice, so that its type does."""
    if not kind.choices:
        return None
    return lambda context, option, text: [c for c in kind.choices if c and c.startswith(text)]


def _parameter(section: str, key: str) -> str:
    return f"{section}__{key}"


def mirror_option(purpose: str) -> Callable[[F], F]:
    """`--endpoint`: a mirror, and for what (`Mirror to pull from`)."""

    def decorate(command: F) -> F:
        return click.option(
            "--endpoint",
            envvar="P2PDIST_ENDPOINT",
            default="http://127.0.0.1:5300",
            show_default=True,
            callback=checked_endpoint,
            help=f"{purpose} (variable P2PDIST_ENDPOINT).",
        )(command)

    return decorate


def of_platform(command: F) -> F:
    """`--platform`: which image of an index is meant."""
    return click.option(
        "--platform", "platform_text", metavar="OS/ARCH[/VARIANT]", help="Default: this one."
    )(command)
