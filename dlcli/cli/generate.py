"""`dlcli generate`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from dlcli.cli.options import JsonOption, QuietOption, RunArgument


def generate(
    run: RunArgument,
    prompt: Annotated[str, typer.Option(help="The text to continue; without one, a new text begins.")] = "",
    temperature: Annotated[
        float, typer.Option(help="Below 1 safer, above 1 wilder; 0 always takes the likeliest token.")
    ] = 0.8,
    top_k: Annotated[int | None, typer.Option(help="Draw only from the K likeliest tokens.")] = None,
    top_p: Annotated[
        float, typer.Option(help="Draw only from the likeliest tokens that together have this probability.")
    ] = 1.0,
    max_tokens: Annotated[int, typer.Option(help="The most tokens to write.")] = 200,
    seed: Annotated[int | None, typer.Option(min=0, help="The same seed writes the same text.")] = None,
    json_: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write text with a run's language model. The text goes to stdout as it comes, the prompt before it.

    Example: dlcli generate runs/shakespeare_gpt --prompt "ROMEO:" --temperature 0.8 --top-k 40
    """
    from dlcli.errors import DlcliError
    from dlcli.runs import load_run

    loaded = load_run(run)
    task = loaded.recipe.task.name
    if task != "language_modeling":
        raise DlcliError(
            f"{run}: its task is {task}, which writes no text; give a run of task language_modeling"
        )

    from dlcli.backend import load_backend
    from dlcli.console import be_quiet, print_json, warn

    if quiet:
        be_quiet()
    load_backend()
    import numpy as np

    from dlcli.evaluation.generate import generate as continue_text
    from dlcli.evaluation.generate import unknown_parts
    from dlcli.layers.tokens import tokens_of

    tokens = tokens_of(loaded.model)
    if tokens is None:
        raise DlcliError(
            f"{run}: its model holds no vocabulary, so it was not trained by dlcli; train it again"
        )
    tokenizer = tokens.tokenizer
    if seed is None:
        seed = int(np.random.default_rng().integers(2**31))
    pieces = continue_text(
        loaded.model, tokenizer, prompt,
        max_tokens=max_tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed,
    )  # fmt: skip
    if unknown := unknown_parts(tokenizer, prompt):
        shown = ", ".join(repr(part) for part in unknown[:10]) + (", ..." if len(unknown) > 10 else "")
        warn(f"not in the model's vocabulary, so it cannot tell them apart: {shown}")
    if json_:
        print_json({"run": str(run), "prompt": prompt, "text": "".join(pieces), "seed": seed})
        return
    sys.stdout.write(prompt)
    for piece in pieces:
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")
