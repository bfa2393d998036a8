"""The version of the installed birc."""

from __future__ import annotations

from importlib import metadata


def birc_version() -> str:
    """As in the metadata of the installed distribution; "unknown" when birc runs without being installed."""
    try:
        return metadata.version("birc")
    except metadata.PackageNotFoundError:
        return "unknown"
