"""What all commands have in common: groups of options, examples, how much they say, and how they end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Any, get_type_hints

import typer
from rich.markup import escape

from fisherflat.cli._output import INTERRUPTED, Voice, speaking
from fisherflat.cli._threads import leave_busy_cores

#: exit code -> what it means
CODES = {
    0: "all went well",
    1: "it failed, or nothing could be measured",
    2: "wrong usage",
    3: "`verify` refuted a certificate",
    4: "a certificate or a checkpoint cannot be read",
    INTERRUPTED: "interrupted by Ctrl-C or SIGTERM",
}


def command(
    *examples: str, then: str = "the same command begins anew"
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A command of the shell.

    A parameter whose type is a dataclass stands for a group of options: its fields are the options, and the function
    gets an instance. Every command has the options of `Voice`, and leaves busy cores alone.

    **Args:** `examples`, whole command lines, shown in the help; `then`, what to do after an interrupt.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        groups: dict[str, Any] = {"": Voice}
        hints, own = get_type_hints(function, include_extras=True), signature(function).parameters.values()
        options: list[Parameter] = []
        for parameter in own:
            kind = hints[parameter.name]
            if isinstance(kind, type) and is_dataclass(kind):
                groups[parameter.name] = kind
                options += _options(kind)
            else:
                options.append(parameter.replace(annotation=kind, kind=Parameter.KEYWORD_ONLY))
        options += _options(Voice)

        @wraps(function)
        def run(**given: Any) -> None:
            made = {
                name: kind(**{field.name: given.pop(field.name) for field in fields(kind)})
                for name, kind in groups.items()
            }
            leave_busy_cores()
            with speaking(made.pop("")):
                try:
                    function(**given, **made)
                except KeyboardInterrupt:
                    typer.echo(f"fisherflat: interrupted; {then}", err=True)
                    raise typer.Exit(INTERRUPTED) from None

        run.__signature__ = Signature(options)  # type: ignore[attr-defined]
        run.__annotations__ = {option.name: option.annotation for option in options}
        run.examples = examples  # type: ignore[attr-defined]
        return run

    return decorate


def _options(group: Any) -> Iterator[Parameter]:
    """The fields of a group as parameters."""
    hints = get_type_hints(group, include_extras=True)
    for field in fields(group):
        default: Any = field.default
        if field.default_factory is not MISSING:
            default = field.default_factory()
        yield Parameter(
            field.name,
            Parameter.KEYWORD_ONLY,
            default=Parameter.empty if default is MISSING else default,
            annotation=hints[field.name],
        )


def epilogue(examples: Sequence[str]) -> str:
    """What follows the options in the help of a command."""
    title = "Example" if len(examples) == 1 else "Examples"
    return "\n\n".join([f"{title}:", "\n".join(f"  {escape(example)}" for example in examples), _ENDS])


_ENDS = "Exit codes: " + ", ".join(map(str, CODES)) + "; `fisherflat --help` says what they mean."


def codes() -> str:
    """The exit codes, a line each."""
    return "\n".join(["Exit codes:", "", *(f"  {code:>3}  {meaning}" for code, meaning in CODES.items())])
