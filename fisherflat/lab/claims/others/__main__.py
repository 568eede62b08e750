"""Make the figures of others again: `python -m fisherflat.lab.claims.others --docs docs`."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from fisherflat._version import __version__
from fisherflat.lab.claims.others import OTHERS

if TYPE_CHECKING:
    import pandas as pd

COMMAND = "python -m fisherflat.lab.claims.others --docs docs"


def text(found: dict[str, pd.DataFrame]) -> str:
    """The page."""
    parts = [
        "# Figures of others",
        "Four figures that others have made of the geometry of representations, on their own tasks by our own code, "
        "in small. Each is deterministic and takes seconds on a free core; after each stands what exact curvature "
        "changes. To make them again, "
        f"with their tables in `docs/data/others`:\n\n```sh\n{COMMAND}\n```",
    ]
    for name, table in found.items():
        module = OTHERS[name]
        about = (module.__doc__ or "").strip().partition("\n\n")[2]
        parts += [f"## {module.TITLE}", about, f"![{module.TITLE}](images/others_{name}.png)", module.said(table)]
    return "\n\n".join(parts) + "\n"


def write(docs: Path, names: list[str]) -> None:
    """Measure, and write tables, figures and the page of all that is there."""
    from pandas import read_parquet

    (docs / "data" / "others").mkdir(parents=True, exist_ok=True)
    (docs / "images").mkdir(exist_ok=True)
    for name in names:
        begun, module = time.perf_counter(), OTHERS[name]
        table = module.measure()
        table.to_parquet(docs / "data" / "others" / f"{name}.parquet", index=False)
        _draw(module, table, docs / "images" / f"others_{name}.png")
        print(f"{name}: {time.perf_counter() - begun:.1f} s\n{module.said(table)}\n", flush=True)
    there = {name: docs / "data" / "others" / f"{name}.parquet" for name in OTHERS}
    page = text({name: read_parquet(path) for name, path in there.items() if path.is_file()})
    (docs / "others.md").write_text(page, encoding="utf-8")


def _draw(module: ModuleType, table: pd.DataFrame, path: Path) -> None:
    module.draw(table).savefig(path, dpi=110, metadata={"Software": f"fisherflat {__version__}"})


def main() -> int:
    """Parse the arguments and write."""
    parser = argparse.ArgumentParser(prog="python -m fisherflat.lab.claims.others", description=__doc__.splitlines()[0])
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="folder of the documentation (default: docs)")
    parser.add_argument("--only", action="append", choices=list(OTHERS), help="only this; may be given several times")
    given = parser.parse_args()
    write(given.docs, given.only or list(OTHERS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
