"""What a command names as written."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fisherflat._files import write_all
from fisherflat.cli import _output


def test_a_file_that_was_removed_again_is_not_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def save(out: Path, formats: Any) -> None:
        """As a result does that replaces a larger one."""
        write_all(out, {name: lambda path: path.touch() for name in ("kept.csv", "old.csv")})
        (out / "old.csv").unlink()

    found: Any = SimpleNamespace(save=save, summary=lambda verbose: "", content=dict)
    with _output.speaking(_output.Voice(json=True)):
        _output.report(found, tmp_path)
        assert _output.files_written() == [tmp_path / "kept.csv"]
    said = capsys.readouterr()
    assert "kept.csv" in said.out and "kept.csv" in said.err and "old.csv" not in said.out + said.err
