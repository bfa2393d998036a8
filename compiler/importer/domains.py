"""The names of operator domains; the standard one has two, of which the empty string stands for both."""

from __future__ import annotations

from typing import Final

STANDARD_DOMAINS: Final = ("", "ai.onnx")


def opset_versions(imports: object) -> dict[str, int]:
    """The domains of an `opset_import` field with their versions; the standard domain is the empty string."""
    return {standard_domain(entry.domain): entry.version for entry in imports}  # type: ignore[attr-defined]


def standard_domain(domain: str) -> str:
    """`domain`, with the empty string for both names of the standard one."""
    return "" if domain in STANDARD_DOMAINS else domain
