"""`dlcli data`: look at a recipe's data without training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dlcli.cli.offline import with_offline
from dlcli.cli.options import JsonOption, RecipeArgument, SetOption

if TYPE_CHECKING:
    from dlcli.data.check import Report

app = typer.Typer(
    help="Look at a recipe's data: preview, check, samples.", no_args_is_help=True, rich_markup_mode=None
)
_SHOWN = 10


@app.command()
@with_offline
def preview(
    recipe: RecipeArgument,
    set_: SetOption = None,
    out: Annotated[Path, typer.Option(help="Where the picture goes.")] = Path("preview.png"),
    count: Annotated[int, typer.Option(min=1, max=256, help="How many samples.")] = 32,
    json_: JsonOption = False,
) -> None:
    """Write a picture of training samples as the network sees them, augmented; of texts their tokens and lengths.

    Example: dlcli data preview cifar10_cnn --out samples.png
    """
    from dlcli.evaluation.figure import check_picture
    from dlcli.recipe.load import load_recipe

    check_picture(out)
    loaded = load_recipe(recipe, set_ or ())

    from dlcli.backend import load_backend

    load_backend()
    from dlcli.console import print_json
    from dlcli.data.preview import write_preview

    picture = write_preview(loaded, out, count)
    if json_:
        print_json({"picture": str(picture)})
    else:
        typer.echo(picture)


@app.command()
@with_offline
def check(recipe: RecipeArgument, set_: SetOption = None, json_: JsonOption = False) -> None:
    """Report unreadable files, duplicates, class balance and sizes; exit 3 when training would refuse it.

    Of texts: lengths in tokens, what max_length cuts, and words that the vocabulary lacks.

    Example: dlcli data check cifar10_cnn --set dataset.path=photos
    """
    from dlcli.recipe.load import load_recipe

    loaded = load_recipe(recipe, set_ or ())

    from dlcli.backend import load_backend

    load_backend()
    from dlcli.console import print_json
    from dlcli.data.check import check_data
    from dlcli.errors import CheckFailedError

    report = check_data(loaded)
    if json_:
        print_json(report.as_dict())
    else:
        _print_report(report)
    if report.refusals:
        raise CheckFailedError("\n".join(report.refusals))


@app.command()
@with_offline
def samples(
    recipe: RecipeArgument,
    set_: SetOption = None,
    out: Annotated[Path, typer.Option(help="The folder where they go.")] = Path("samples"),
    count: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 10,
    json_: JsonOption = False,
) -> None:
    """Write some test images as PNG files, or documents as .txt, to try `dlcli predict` on.

    Example: dlcli data samples digits_cnn --out samples
    """
    from dlcli.recipe.load import load_recipe

    loaded = load_recipe(recipe, set_ or ())

    from dlcli.backend import load_backend

    load_backend()
    from dlcli.console import print_json
    from dlcli.data.samples import write_samples

    paths = write_samples(loaded, out, count)
    if json_:
        print_json({"samples": [str(path) for path in paths]})
        return
    for path in paths:
        typer.echo(path)


def _print_report(report: Report) -> None:
    _print_classes(report)
    _print_texts(report)
    _print_counts(report)
    _print_duplicates(report)


def _print_classes(report: Report) -> None:
    from rich.markup import escape
    from rich.table import Table

    from dlcli.console import out

    table = Table(title=f"{report.dataset}: examples")
    table.add_column("class" if report.classes else "", overflow="fold")
    for split in report.splits:
        table.add_column(split, justify="right")
    for name in next(iter(report.classes.values()), {}):
        table.add_row(escape(name), *(str(report.classes[split][name]) for split in report.splits))
    table.add_row("all", *(str(count) for count in report.splits.values()), style="bold")
    out.print(table)
    imbalance = report.imbalance()
    if imbalance is not None and imbalance > 1.5:
        out.print(
            f"the largest class has {imbalance:.1f} times the examples of the smallest", highlight=False
        )


def _print_texts(report: Report) -> None:
    from rich.table import Table

    from dlcli.console import out

    if not report.texts:
        return
    table = Table(title="lengths in tokens")
    for name in (
        "split",
        "text",
        "median",
        "95 %",
        "longest",
        f"over {report.max_length}",
        "unknown",
        "empty",
    ):
        table.add_column(name, justify="left" if name in ("split", "text") else "right")
    for each in report.texts:
        cut = "in pieces" if each.cut is None else f"{100 * each.cut:.1f} %"
        lengths = (each.median, each.percentile_95, each.longest)
        table.add_row(
            each.split,
            each.column,
            *(f"{length:,.0f}" for length in lengths),
            cut,
            f"{100 * each.unknown:.2f} %",
            str(each.empty),
        )
    out.print(table)
    total = sum(each.tokens for each in report.texts)
    out.print(f"{total:,} tokens; a vocabulary of {report.vocabulary_size:,}", highlight=False)


def _print_counts(report: Report) -> None:
    from rich.table import Table

    from dlcli.console import out

    if report.sizes:
        table = Table(title="images")
        table.add_column("height x width, mode")
        table.add_column("count", justify="right")
        for name, count in [*list(report.sizes.items())[:_SHOWN], *report.modes.items()]:
            table.add_row(name, str(count))
        if len(report.sizes) > _SHOWN:
            table.caption = f"and {len(report.sizes) - _SHOWN} other sizes"
        out.print(table)
    for reason, count in report.ignored.items():
        out.print(f"ignored: {count} files, {reason}", markup=False, highlight=False)
    for note in report.notes:
        out.print(f"note: {note}", markup=False, highlight=False)


def _print_duplicates(report: Report) -> None:
    from dlcli.console import out

    def say(text: str) -> None:
        out.print(text, markup=False, highlight=False, soft_wrap=True)

    say(f"unreadable files: {len(report.unreadable)}")
    for path, reason in list(report.unreadable.items())[:_SHOWN]:
        say(f"  {path} {reason}")
    if len(report.unreadable) > _SHOWN:
        say(f"  ... and {len(report.unreadable) - _SHOWN} more")
    duplicates = report.duplicates
    within = ", ".join(f"{count} in {split}" for split, count in duplicates.within.items())
    say(f"duplicates within a split: {within or 'none'}")
    say(f"the same content in more than one split: {duplicates.across or 'none'}")
    if duplicates.contradictory:
        say(f"the same content with different labels: {duplicates.contradictory}")
    for group in duplicates.examples[:_SHOWN]:
        say("  " + " = ".join(group))
