"""`dlcli explain`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dlcli.cli.features import Pixels
from dlcli.cli.options import JsonOption, QuietOption, SetOption, changes_of_data
from dlcli.cli.predict import INPUTS
from dlcli.errors import DlcliError
from dlcli.explain import DEFAULT_METHODS, METHODS


class Baseline(StrEnum):
    """What hidden parts of an image look like."""

    mean = "mean"
    black = "black"
    white = "white"
    blur = "blur"


class Output(StrEnum):
    """Which number of a class is explained."""

    logit = "logit"
    probability = "probability"


_METHODS = "; ".join(f"{kind}s: {', '.join(methods)}" for kind, methods in METHODS.items())
_DEFAULTS = "; ".join(f"{', '.join(methods)} for {kind}s" for kind, methods in DEFAULT_METHODS.items())


RunOrFile = Annotated[str, typer.Argument(help="A run folder, or a .keras or .h5 file of any Keras 3 model.")]
Inputs = Annotated[list[str] | None, typer.Argument(help=INPUTS)]
MethodOption = Annotated[
    str | None,
    typer.Option("--method", "-m", help=f"Methods, by commas. For {_METHODS}. Default: {_DEFAULTS}."),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        help="The folder to write; one that was left unfinished is continued. Default: RUN/explain, RUN/audit."
    ),
]
ClassOption = Annotated[
    str | None,
    typer.Option(
        "--class",
        metavar="NAME|INDEX",
        help="The class (or target column) to explain. Default: the predicted.",
    ),
]
TopOption = Annotated[int, typer.Option(min=1, max=20, help="Explain so many of the most probable classes.")]
LayerOption = Annotated[
    str | None,
    typer.Option(
        help="The layer of class activation maps, as `dlcli plan` names it. Default: the last with a map."
    ),
]
SamplesOption = Annotated[
    int | None,
    typer.Option(min=16, max=1_000_000, help="Of lime, shap, rise and others: how often the model is asked."),
]
StepsOption = Annotated[
    int | None,
    typer.Option(
        min=2, max=2_000, help="Of integrated_gradients: points on the way from the baseline to the input."
    ),
]
SegmentsOption = Annotated[
    int | None, typer.Option(min=2, max=2_000, help="Of lime and shap of images: about so many superpixels.")
]
BaselineOption = Annotated[
    Baseline | None, typer.Option(help="What hidden parts of an image look like. Default: its mean colour.")
]
OutputOption = Annotated[
    Output, typer.Option(help="What is explained; probabilities are flat where the model is sure.")
]
SeedOption = Annotated[
    int, typer.Option(min=0, help="Of samples and random orders; the same gives the same bytes.")
]
TrustOption = Annotated[
    bool, typer.Option("--trust/--no-trust", help="Measure how faithful and stable each explanation is.")
]
AuditOption = Annotated[
    bool,
    typer.Option(
        "--audit", help="Compare the methods over the test split, and explain the worst errors; no INPUTS."
    ),
]
LimitOption = Annotated[
    int | None,
    typer.Option(min=2, help="Of --audit: examples on which the methods are compared. Default: 32."),
]
PixelsOption = Annotated[
    Pixels, typer.Option(help="Of a file from elsewhere: what it expects of pixels, when it does not say.")
]


def explain(
    run: RunOrFile,
    inputs: Inputs = None,
    method: MethodOption = None,
    out: OutOption = None,
    class_: ClassOption = None,
    top: TopOption = 1,
    layer: LayerOption = None,
    samples: SamplesOption = None,
    steps: StepsOption = None,
    segments: SegmentsOption = None,
    baseline: BaselineOption = None,
    output: OutputOption = Output.logit,
    seed: SeedOption = 0,
    trust: TrustOption = True,
    audit: AuditOption = False,
    limit: LimitOption = None,
    set_: SetOption = None,
    preprocessing: PixelsOption = Pixels.auto,
    json_: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Show why a model says what it says, and how far to believe it.

    For each input and method: a picture INPUT.METHOD.png, the numbers INPUT.METHOD.npy, and a line in explanation.json;
    index.html shows all of them. Faithfulness is how much sooner the model's probability rises and falls when parts are
    shown and hidden in the explanation's order than in a random one: 0 is chance.

    Example: dlcli explain runs/cifar10_cnn cat.jpg photos/ --method grad_cam,lime,shap

    Example: dlcli explain runs/imdb_lstm "A wonderful film." --method integrated_gradients --out why

    Example: dlcli explain runs/cifar10_cnn --audit
    """
    if audit and inputs:
        raise DlcliError("--audit takes its inputs from the test split; leave INPUTS out")
    if not audit and not inputs:
        raise DlcliError("nothing to explain: give INPUTS, or --audit for the run's test split")
    if limit is not None and not audit:
        raise DlcliError(f"--limit {limit}: is for --audit; leave it out")
    if class_ is not None and top > 1:
        raise DlcliError(
            f"--class {class_} --top {top}: one class is named, so there are no others; leave one out"
        )
    changes = changes_of_data(set_, "a model is explained as it is; only where its data are can be changed")

    from dlcli.backend import load_backend
    from dlcli.console import be_quiet

    if quiet:
        be_quiet()
    load_backend()
    from dlcli.explain.choice import Options
    from dlcli.explain.report import print_audit, print_explanations
    from dlcli.explain.source import open_source

    options = Options(
        methods=tuple(
            name.strip().replace("-", "_").lower() for name in (method or "").split(",") if name.strip()
        ),
        class_name=class_,
        top=top,
        layer=layer,
        samples=samples,
        steps=steps,
        segments=segments,
        baseline=None if baseline is None else baseline.value,
        seed=seed,
        probability=output is Output.probability,
        trust=trust,
    )
    source = open_source(run, preprocessing.value)
    if audit:
        from dlcli.explain.audit import audit_run

        print_audit(audit_run(source, out, options, limit=limit or 32, changes=changes), json_)
        return
    from dlcli.explain.explain import explain_inputs

    print_explanations(explain_inputs(source, inputs or [], out, options, changes=changes), json_)
