"""Operators of the standard that always run on the host, each with the reason."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

_RANDOM: Final = "random numbers are drawn on the host"
_STRINGS: Final = "strings exist on the host alone"
_SEQUENCES: Final = "sequences exist on the host alone"
_OPTIONALS: Final = "optional values exist on the host alone"

HOST_ONLY: Final = MappingProxyType(
    {
        **dict.fromkeys(
            ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"),
            _RANDOM,
        ),
        **dict.fromkeys(("RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit"), _STRINGS),
        **dict.fromkeys(
            (
                "ConcatFromSequence",
                "SequenceAt",
                "SequenceConstruct",
                "SequenceEmpty",
                "SequenceErase",
                "SequenceInsert",
                "SequenceLength",
                "SequenceMap",
                "SplitToSequence",
            ),
            _SEQUENCES,
        ),
        **dict.fromkeys(("Optional", "OptionalGetElement", "OptionalHasElement"), _OPTIONALS),
        "ImageDecoder": "compressed images are decoded on the host",
        "NonMaxSuppression": "how many boxes it keeps depends on data",
    }
)
