"""Verdicts, figures and pages from the raw tables: `python -m fisherflat.lab.claims.page --runs DIR --docs docs`.

Without `--runs` it starts from the tables that ship under `docs/data/claims`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fisherflat._files import read_json, whole
from fisherflat.errors import InputError
from fisherflat.lab.claims._beside import accuracies, correlations, depths, gauge, measures, mlps, shuffled
from fisherflat.lab.claims._figures import figures
from fisherflat.lab.claims._page import markdown, page
from fisherflat.lab.claims._protocol import Protocol
from fisherflat.lab.claims._run import load, save
from fisherflat.lab.claims._verdicts import settle, verdicts
from fisherflat.pages import html

if TYPE_CHECKING:
    import pandas as pd

#: the raw tables, and those that are made of them
RAW, MADE = (
    ("models", "symmetries"),
    ("tests", "correlations", "gauge", "measures", "accuracies", "depths", "mlps", "shuffled"),
)
#: where they ship, below the documentation
DATA = Path("data") / "claims"
#: beside them, on what machine they were made
MACHINE = "machine.json"


def raw(folder: Path) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """The raw tables of a run, and what they were made with.

    **Raises:** `InputError` where there is no `models.parquet`.
    """
    if not (folder / "models.parquet").is_file():
        raise InputError(f"{folder} has no models.parquet; run `python -m fisherflat.lab.claims --out {folder}` first")
    found: dict[str, pd.DataFrame] = {}
    about: dict[str, Any] = {}
    for name in RAW:
        path = folder / f"{name}.parquet"
        if path.is_file():
            found[name], made = load(path)
            about = {**made, **about}
            about.setdefault("files", {})[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    if (folder / MACHINE).is_file():
        about |= read_json(folder / MACHINE)
    return found, about


def made(tables: Mapping[str, pd.DataFrame], protocol: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """All that the page shows: the raw tables with the tests, and what is reported beside them."""
    models = tables["models"]
    more = {"mlps": mlps(tables["symmetries"])} if "symmetries" in tables else {}
    return {
        **tables,
        "tests": settle(tables, protocol),
        "correlations": correlations(models, protocol),
        "gauge": gauge(models, protocol),
        "measures": measures(models, protocol),
        "accuracies": accuracies(models),
        "depths": depths(models, protocol),
        "shuffled": shuffled(models, protocol),
        **more,
    }


def write(
    tables: Mapping[str, pd.DataFrame], protocol: Mapping[str, Any], about: Mapping[str, Any], docs: Path
) -> None:
    """The tables that are made, the figures and both pages."""
    (docs / DATA).mkdir(parents=True, exist_ok=True)
    (docs / "images").mkdir(exist_ok=True)
    for name in (name for name in MADE if name in tables):
        save(tables[name], {"protocol_sha256": about["protocol_sha256"]}, docs / DATA / f"{name}.parquet")
    for claim, draw in figures(tables, protocol).items():
        draw().savefig(docs / "images" / f"claims_{claim}.png", dpi=110, metadata={"Software": None})
    (docs / "claims.md").write_text(markdown(tables, protocol, about), encoding="utf-8")


def main() -> int:
    """Parse the arguments and write."""
    parser = argparse.ArgumentParser(prog="python -m fisherflat.lab.claims.page", description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, metavar="DIR", help="folder with models.parquet (default: what ships)")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="folder of the documentation (default: docs)")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write the page of one file, report.html, here too")
    parser.add_argument("--machine", help="on what machine the tables were made, to be kept with them")
    given = parser.parse_args()
    protocol = Protocol.load()
    found, about = raw(given.runs or given.docs / DATA)
    if about.get("protocol_sha256") != protocol.sha256:
        print(
            f"the tables are of protocol {about.get('protocol_sha256')}, and this is {protocol.sha256}", file=sys.stderr
        )
    if given.runs is not None:
        (given.docs / DATA).mkdir(parents=True, exist_ok=True)
        for name in found:
            (given.docs / DATA / f"{name}.parquet").write_bytes((given.runs / f"{name}.parquet").read_bytes())
        (given.docs / DATA / MACHINE).unlink(missing_ok=True)  # it is of the tables that were there
    if given.machine is not None:
        about["machine"] = given.machine
    if "machine" in about:
        with whole(given.docs / DATA / MACHINE) as part:
            part.write_text(json.dumps({"machine": about["machine"]}) + "\n", encoding="utf-8")
    tables = made(found, protocol.tables)
    write(tables, protocol.tables, about, given.docs)
    if given.report is not None:
        given.report.write_text(html(page(tables, protocol.tables, about)), encoding="utf-8")
    print(json.dumps(verdicts(tables["tests"]), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
