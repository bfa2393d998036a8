"""Writes the corpus of bad models: one folder a model, by name.

python tests/hostile/make_corpus.py FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path

SUPPORT = Path(__file__).resolve().parent.parent / "support"


def write_corpus(folder: Path) -> int:
    """Write every model into a folder of its own inside `folder`; how many there are."""
    sys.path.insert(0, str(SUPPORT))
    from bad_models import CORPUS

    for entry in CORPUS:
        own = folder / entry.name
        own.mkdir(parents=True)
        entry.make(own)
    return len(CORPUS)


if __name__ == "__main__":
    print(f"{write_corpus(Path(sys.argv[1]))} models")
