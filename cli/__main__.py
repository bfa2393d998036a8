"""`python -m birc.cli` is `birc`."""

from __future__ import annotations

import sys

from birc.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
