"""Every public function and class has an example that runs."""

from __future__ import annotations

import doctest
import inspect
import re

import pytest
from public import NAMES, is_exception

EXAMPLES = {
    name: [test for test in doctest.DocTestFinder().find(thing, name, module=False, globs={}) if test.examples]
    for name, thing in NAMES.items()
}


@pytest.mark.parametrize("name", [name for name, tests in EXAMPLES.items() if tests])
def test_the_examples_run(name: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)  # some save files
    runner, said = doctest.DocTestRunner(), []
    for test in EXAMPLES[name]:
        runner.run(test, out=said.append)
    assert not runner.failures, "".join(said)


@pytest.mark.parametrize("name", [name for name, thing in NAMES.items() if not is_exception(thing)])
def test_there_is_an_example(name: str) -> None:
    """Of its own; or, for a class that is only returned, that of the public function that its description names."""
    if EXAMPLES[name]:
        return
    assert inspect.isclass(NAMES[name]), "a public function needs an example"
    named = {word for said in re.findall(r"`([\w.]+)`", inspect.getdoc(NAMES[name]) or "") for word in said.split(".")}
    makers = {each for each, tests in EXAMPLES.items() if tests and each.rpartition(".")[2] in named}
    assert makers, "it has no example, and names no public function that has one"
