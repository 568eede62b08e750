"""Commands about several models: compare."""

from __future__ import annotations

from fisherflat.cli import _options as options
from fisherflat.cli._grammar import command
from fisherflat.cli._output import ended, progress, report


@command(
    "fisherflat compare python-llama python-qwen3-next --layer 0-1 \\\n"
    '    --part attention --prompt "def mean(values):" --points 4 --out compared',
    then="the same command with --resume goes on from what is done",
)
def compare(
    paths: options.ModelPaths,
    out: options.OutFolder,
    prompts: options.Prompts,
    measuring: options.Measuring,
    loading: options.Loading,
    formats: options.Formats = options.PNG,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
) -> None:
    """How the curvature of models differs, by layer, part and reading: paired differences with intervals.

    Beside each difference stands the noise floor, how much two halves of one analysis differ. What is done is kept as
    it comes. Ctrl-C ends early with exit code 130; the same command with --resume goes on.
    """
    from fisherflat.report import Comparison, compare, room_for

    what = measuring.arguments()
    with room_for(Comparison, out, overwrite=overwrite or resume):
        found = compare(
            *paths,
            prompts=prompts.given(),
            load=loading.arguments(),
            folder=out,
            resume=resume,
            overwrite=overwrite,
            progress=progress(),
            **what,
        )
        report(found, out, formats)
    ended(found)
