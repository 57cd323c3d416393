"""`dlcli generate`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlcli.cli.options import JsonOption, QuietOption, RunArgument

if TYPE_CHECKING:
    from dlcli.runs import Run

TEXT, IMAGES, TRANSLATION = "texts", "samples", "translations"
_TEMPERATURE, _MAX_TOKENS, _COUNT = 0.8, 200, 64

PromptOption = Annotated[
    str | None, typer.Option(help="The text to continue; without one, a new text begins.")
]
TemperatureOption = Annotated[
    float | None,
    typer.Option(
        help=f"Below 1 safer, above 1 wilder; 0 always takes the likeliest token. Default: {_TEMPERATURE}."
    ),
]
TopKOption = Annotated[int | None, typer.Option(help="Draw only from the K likeliest tokens.")]
TopPOption = Annotated[
    float | None,
    typer.Option(help="Draw only from the likeliest tokens that together have this probability. Default: 1."),
]
MaxTokensOption = Annotated[
    int | None, typer.Option(help=f"The most tokens to write. Default: {_MAX_TOKENS}.")
]
SeedOption = Annotated[
    int | None, typer.Option(min=0, help="The same seed writes the same text, and draws the same images.")
]
CountOption = Annotated[
    int | None, typer.Option(min=1, max=100_000, help=f"How many images. Default: {_COUNT}.")
]
OutOption = Annotated[
    Path | None, typer.Option(help="A new folder for images. Default: RUN/generated, RUN/generated-2, ...")
]
ClassOption = Annotated[
    str | None,
    typer.Option(
        "--class", metavar="NAME|INDEX", help="Of a conditional model: draw this class, not all in turn."
    ),
]
GridOption = Annotated[
    bool | None,
    typer.Option("--grid/--no-grid", help="Write one picture of all images too. Default: --grid."),
]
InterpolateOption = Annotated[
    bool, typer.Option("--interpolate", help="Walk from one random image to the next; writes a GIF too.")
]
InputOption = Annotated[
    list[Path] | None,
    typer.Option("--input", help="Of task image_translation: images or folders of them to translate."),
]
ReverseOption = Annotated[
    bool, typer.Option("--reverse", help="Of architecture cycle_gan: translate from B to A.")
]


def generate(
    run: RunArgument,
    prompt: PromptOption = None,
    temperature: TemperatureOption = None,
    top_k: TopKOption = None,
    top_p: TopPOption = None,
    max_tokens: MaxTokensOption = None,
    seed: SeedOption = None,
    count: CountOption = None,
    out: OutOption = None,
    class_: ClassOption = None,
    grid: GridOption = None,
    interpolate: InterpolateOption = False,
    input_: InputOption = None,
    reverse: ReverseOption = False,
    json_: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write text with a run's language model, draw images with its GAN, VAE or diffusion model, or translate images.

    Text goes to stdout as it comes, the prompt before it; images go to files, and their folder to stdout.

    Example: dlcli generate runs/shakespeare_gpt --prompt "ROMEO:" --temperature 0.8 --top-k 40

    Example: dlcli generate runs/mnist_dcgan --count 64 --seed 0 --out samples

    Example: dlcli generate runs/horse2zebra_cycle_gan --input horses/ --out zebras
    """
    from dlcli.runs import load_run

    loaded = load_run(run)
    kind = _kind(loaded)
    texts = {
        "--prompt": prompt, "--temperature": temperature, "--top-k": top_k, "--top-p": top_p,
        "--max-tokens": max_tokens,
    }  # fmt: skip
    samples = {"--count": count, "--class": class_, "--interpolate": interpolate or None}
    translations = {"--input": input_ or None, "--reverse": reverse or None}
    images = {"--out": out, "--grid": grid}
    _check_flags(loaded, kind, {TEXT: texts, IMAGES: samples, TRANSLATION: translations}, images, seed)

    from dlcli.backend import load_backend
    from dlcli.console import be_quiet

    if quiet:
        be_quiet()
    load_backend()
    if kind == TEXT:
        _write_text(loaded, prompt or "", temperature, top_k, top_p, max_tokens, seed, json_)
        return
    shows = grid is not False
    if kind == TRANSLATION:
        from dlcli.evaluation.samples.generate_images import results_folder
        from dlcli.evaluation.samples.translate_images import translate_images

        with results_folder(loaded, out) as folder:
            report = translate_images(loaded, input_ or [], folder, reverse, shows)
        _say_images(report, json_)
        return
    from dlcli.evaluation.samples.generate_images import Wanted, generate_images

    wanted = Wanted(count or _COUNT, _drawn_seed() if seed is None else seed, class_, shows, interpolate)
    _say_images(generate_images(loaded, wanted, out), json_)


def _kind(run: Run) -> str:
    """What a run generates.

    Raises:
        DlcliError: nothing.
    """
    from dlcli.errors import DlcliError
    from dlcli.tasks import GENERATIVE_TASKS

    task = run.recipe.task.name
    if task == "language_modeling":
        return TEXT
    if task == "image_translation":
        return TRANSLATION
    if task in GENERATIVE_TASKS:
        return IMAGES
    raise DlcliError(
        f"{run.path}: its task is {task}, which writes no text and draws no images; give a run of task "
        f"language_modeling, {', '.join(GENERATIVE_TASKS)}"
    )


def _check_flags(
    run: Run,
    kind: str,
    own: Mapping[str, Mapping[str, Any]],
    images: Mapping[str, Any],
    seed: int | None,
) -> None:
    """Refuses flags that this run could only ignore, and a translation without images."""
    from dlcli.errors import DlcliError

    task = run.recipe.task.name
    wanted_by = {
        TEXT: "task language_modeling",
        IMAGES: "tasks gan, autoencoding and diffusion",
        TRANSLATION: "task image_translation",
    }
    for whose, flags in own.items():
        for flag, value in flags.items():
            if value is not None and whose != kind:
                raise DlcliError(
                    f"{flag}: is for {wanted_by[whose]}, and {run.path} is of task {task}; leave it out"
                )
    for flag, value in images.items():
        if value is not None and kind == TEXT:
            raise DlcliError(f"{flag}: is for images, and {run.path} writes text; leave it out")
    if kind == TRANSLATION and seed is not None:
        raise DlcliError(
            f"--seed {seed}: is for what is drawn at random, and a translation is not; leave it out"
        )
    if kind == TRANSLATION and own[TRANSLATION]["--input"] is None:
        raise DlcliError(f"{run.path} translates images: give them, or their folder, with --input")


def _drawn_seed() -> int:
    import numpy as np

    return int(np.random.default_rng().integers(2**31))


def _say_images(report: dict[str, Any], as_json: bool) -> None:
    """The folder on stdout; how many, and the seed, on stderr."""
    from dlcli.console import note, print_json

    if as_json:
        print_json(report)
        return
    shown = ", ".join(report[key] for key in ("grid", "animation") if report.get(key))
    seed = f"; --seed {report['seed']} draws them again" if "seed" in report else ""
    count = len(report.get("images", ()))
    note(f"{count:,} image{'s' * (count != 1)}{f', {shown}' if shown else ''}{seed}")
    typer.echo(report["folder"])


def _write_text(
    run: Run,
    prompt: str,
    temperature: float | None,
    top_k: int | None,
    top_p: float | None,
    max_tokens: int | None,
    seed: int | None,
    as_json: bool,
) -> None:
    """Text to stdout, piece by piece."""
    from dlcli.console import print_json, warn
    from dlcli.errors import DlcliError
    from dlcli.evaluation.generate import generate as continue_text
    from dlcli.evaluation.generate import unknown_parts
    from dlcli.layers.tokens import tokens_of

    tokens = tokens_of(run.model)
    if tokens is None:
        raise DlcliError(
            f"{run.path}: its model holds no vocabulary, so it was not trained by dlcli; train it again"
        )
    tokenizer = tokens.tokenizer
    seed = _drawn_seed() if seed is None else seed
    pieces = continue_text(
        run.model, tokenizer, prompt,
        max_tokens=_MAX_TOKENS if max_tokens is None else max_tokens,
        temperature=_TEMPERATURE if temperature is None else temperature,
        top_k=top_k, top_p=1.0 if top_p is None else top_p, seed=seed,
    )  # fmt: skip
    if unknown := unknown_parts(tokenizer, prompt):
        shown = ", ".join(repr(part) for part in unknown[:10]) + (", ..." if len(unknown) > 10 else "")
        warn(f"not in the model's vocabulary, so it cannot tell them apart: {shown}")
    if as_json:
        print_json({"run": str(run.path), "prompt": prompt, "text": "".join(pieces), "seed": seed})
        return
    sys.stdout.write(prompt)
    for piece in pieces:
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")
