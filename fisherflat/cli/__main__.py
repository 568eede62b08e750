"""`python -m fisherflat.cli` is the command `fisherflat`."""

from __future__ import annotations

from fisherflat.cli import main

if __name__ == "__main__":
    main()
