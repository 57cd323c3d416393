"""A run becomes an artefact: written, described, loaded by its own runtime, compared, and only then put in place."""

from __future__ import annotations

import json
import os
import pkgutil
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dlcli.console import note, status
from dlcli.errors import CheckFailedError, DlcliError, OutputError
from dlcli.export import FORMATS, sample, verify
from dlcli.export.example import PICTURE
from dlcli.export.exportable import exportable
from dlcli.export.format import Exportable, Format, Inputs, Quantize
from dlcli.export.generative import compared_data, expected_picture, unlike_picture
from dlcli.export.manifest import TOKENIZER, about, with_files, write_manifest
from dlcli.export.report import compared_on
from dlcli.export.samples import Samples
from dlcli.export.worker import Job
from dlcli.extras import require
from dlcli.recipe.schema import Recipe
from dlcli.runs import Run, write_json

Outcome = dict[str, Any]
"""`format`, `status` (exported, refused, missing, failed), `folder` or `reason`, and what verification.json holds."""

_WORKER = ("-m", "dlcli.export.worker")

_LOG_LINES = 30
"""Of a converter's own output, shown when it fails."""


@dataclass(frozen=True)
class Request:
    """What the user asked for."""

    formats: tuple[str, ...]
    """Names of the table FORMATS."""
    out: Path | None = None
    """The artefact's folder; of several formats the folder of their folders. None: `RUN/export/FORMAT`."""
    batch_size: int | None = None
    quantize: Quantize | None = None
    tolerance: float = verify.TOLERANCE
    every: bool = False
    """Whether the formats are all that there are: then what is not installed or not possible is only told."""


@dataclass(frozen=True)
class Expected:
    """The run's own side of every comparison."""

    item: Exportable
    samples: Samples
    outputs: np.ndarray
    latency: dict[str, float]
    bytes: int
    """Of model.keras."""
    calibration: Any
    common: dict[str, Any]
    """Of every manifest."""


def export_run(run: Run, recipe: Recipe, request: Request) -> list[Outcome]:
    """Exports a run to all formats that are asked for, one after another.

    Args:
        run: as `dlcli train` left it.
        recipe: the run's, perhaps with other places of the data.
        request: what to write, and where.

    Returns:
        One outcome a format. Of a single format an error is raised, of several it is an outcome.

    Raises:
        CheckFailedError: a single artefact differs from the model.
        DlcliError: a folder is there already, the data are gone, or a single format cannot do what was asked.
    """
    targets = {name: folder_of(run, name, request) for name in request.formats}
    _check_free(targets.values())
    chosen: dict[str, Format] = {}
    outcomes: dict[str, Outcome] = {}
    for name in request.formats:
        with _outcome(name, request, outcomes, "missing"):
            chosen[name] = _usable(name, request)
    for name in [
        name for name, each in chosen.items() if request.quantize not in (None, *each.quantizations)
    ]:
        with _outcome(name, request, outcomes, "refused"):
            raise DlcliError(_no_quantization(chosen.pop(name), request))
    if chosen:
        expected = expect(run, recipe, request)
        for name, each in chosen.items():
            with _outcome(name, request, outcomes, "refused"), status(f"{name}: exporting and comparing"):
                outcomes[name] = export_one(run, each, expected, request, targets[name])
    return [outcomes[name] for name in request.formats]


def folder_of(run: Run, name: str, request: Request) -> Path:
    """Where an artefact goes."""
    whole = name + (f"-{request.quantize}" if request.quantize else "")
    whole += f"-batch{request.batch_size}" if request.batch_size else ""
    if request.out is None:
        return run.path / "export" / whole
    return request.out / whole if len(request.formats) > 1 or request.every else request.out


def expect(run: Run, recipe: Recipe, request: Request) -> Expected:
    """What Keras says of real examples, and how long it takes.

    Raises:
        DlcliError: the run has no model, or its data cannot be read.
    """
    import tensorflow as tf

    with status("reading the run and its data"):
        item = exportable(run)
        data = compared_data(recipe, item)
        samples = data.samples()
        calibration = data.calibration() if request.quantize == "int8" else None
        common = about(run, item, data.task if item.tokenizer else None)
    tf.config.experimental.enable_tensor_float_32_execution(False)  # 10 bits would hide what is compared
    own = verify.keras_run(item.model)
    with status(f"running the model on {len(samples)} examples"):
        outputs = own(samples.inputs)
        latency = verify.latencies(own, samples.inputs)
    return Expected(item, samples, outputs, latency, run.model_path.stat().st_size, calibration, common)


def export_one(run: Run, chosen: Format, expected: Expected, request: Request, target: Path) -> Outcome:
    """Writes one artefact to `target`, or nothing at all.

    Raises:
        CheckFailedError: the artefact differs from the model, or its example.py does not run.
        DlcliError: the format cannot do it, or its converter failed.
    """
    with _partial(target) as partial, tempfile.TemporaryDirectory(prefix="dlcli-export-") as scratch:
        job, index = Path(scratch), sample.chosen(expected.item, expected.samples, expected.outputs)
        _prepare(job, run, chosen, expected, request, partial, index)
        _work(job, chosen)
        result = json.loads((job / "result.json").read_text(encoding="utf-8"))
        outputs = np.load(job / "outputs.npy", allow_pickle=False)
        report = _compare(chosen, expected, request, outputs, result)
        write_json(partial / "verification.json", report)
        _check_example(partial, chosen, expected.item, outputs[index])
        _check_picture(partial, chosen, expected, request, index, outputs[index])
        described = json.loads((partial / "manifest.json").read_text(encoding="utf-8"))
        write_manifest(partial, with_files(described, partial))
        _place(partial, target)
    for each in described["notes"]:
        note(f"{chosen.name}: {each}")
    return {
        "format": chosen.name,
        "status": "exported",
        "folder": str(target),
        "notes": described["notes"],
        **report,
    }


def _usable(name: str, request: Request) -> Format:
    found: Format = pkgutil.resolve_name(FORMATS[name])
    if found.extra is not None:
        require(found.extra, *found.packages, what=f"--format {name}")
    return found


def _no_quantization(chosen: Format, request: Request) -> str:
    able = [name for name in FORMATS if request.quantize in pkgutil.resolve_name(FORMATS[name]).quantizations]
    own = f"it can {' or '.join(chosen.quantizations)}" if chosen.quantizations else "it stays float32"
    return f"{chosen.name} cannot be quantized to {request.quantize} ({own}); formats that can: {', '.join(able)}"


@contextmanager
def _outcome(name: str, request: Request, outcomes: dict[str, Outcome], otherwise: str) -> Iterator[None]:
    """Of several formats, keeps an error as the outcome of one; of a single format lets it through."""
    try:
        yield
    except DlcliError as error:
        if len(request.formats) == 1:
            raise
        failed = isinstance(error, CheckFailedError)
        outcomes[name] = {
            "format": name,
            "status": "failed" if failed else otherwise,
            "reason": str(error).removeprefix(f"{name}: "),
        }


def _check_free(targets: Any) -> None:
    taken = [
        str(target)
        for target in targets
        if target.exists() and (not target.is_dir() or any(target.iterdir()))
    ]
    if taken:
        raise DlcliError(
            f"{', '.join(taken)}: is there already, and nothing is overwritten; choose another place with --out, or "
            "delete it first"
        )


@contextmanager
def _partial(target: Path) -> Iterator[Path]:
    """An empty folder beside the target, which is gone afterwards unless it became the target."""
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise OutputError(f"{target}: cannot be written: {error.strerror}") from error
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _place(partial: Path, target: Path) -> None:
    """Puts the finished folder in place, whole or not at all, also when the power fails."""
    folders = [partial, *(path for path in partial.rglob("*") if path.is_dir())]
    try:
        for path in [*(path for path in partial.rglob("*") if path.is_file()), *folders]:
            _sync(path)
        partial.rename(target)
        _sync(target.parent)
    except OSError as error:
        raise OutputError(f"{target}: cannot be written: {error.strerror}") from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _prepare(
    job: Path, run: Run, chosen: Format, expected: Expected, request: Request, partial: Path, index: int
) -> None:
    """All that the worker reads."""
    item, samples = expected.item, expected.samples
    files = job / "files"
    files.mkdir()
    if item.tokenizer is not None:
        (files / TOKENIZER).write_text(item.tokenizer, encoding="utf-8")
    sample.write_sample(item, samples, index, expected.common["task"], files / expected.common["sample"])
    _save(job / "samples.npz", samples.inputs if chosen.strings else samples.numeric)
    if expected.calibration is not None:
        _save(job / "calibration.npz", expected.calibration)
    Job(
        run=str(run.path.resolve()),
        format=FORMATS[chosen.name],
        folder=str(partial.resolve()),
        common=expected.common,
        batch_size=request.batch_size,
        quantize=request.quantize,
    ).save(job)


def _save(path: Path, arrays: Inputs) -> None:
    named: Any = dict(arrays)
    np.savez(path, **named)


def _work(job: Path, chosen: Format) -> None:
    """Runs the worker.

    Raises:
        DlcliError: it refused, failed or died.
    """
    code, printed = _in_child([sys.executable, *_WORKER, str(job)])
    if code == 0:
        return
    stage = (job / "stage.txt").read_text(encoding="utf-8") if (job / "stage.txt").is_file() else "starting"
    error = job / "error.json"
    if code > 0 and error.is_file():
        found = json.loads(error.read_text(encoding="utf-8"))
        if found["expected"]:
            raise DlcliError(f"{chosen.name}: {found['reason'].removeprefix(f'{chosen.name}: ')}")
        raise DlcliError(f"{chosen.name}: failed while {stage}: {found['reason']}{_end_of(printed)}")
    how = f"its process was ended by {_signal(-code)}" if code < 0 else f"its process ended with code {code}"
    why = "out of memory?" if code == -signal.SIGKILL else "the converter or the runtime has crashed"
    raise DlcliError(f"{chosen.name}: {how} while {stage}: {why}; nothing was written{_end_of(printed)}")


def _in_child(command: Sequence[str], **options: Any) -> tuple[int, str]:
    """Exit code, negative for a signal, and everything printed; no child outlives us."""
    paths = os.pathsep.join(str(Path(path).resolve()) for path in sys.path if path)
    with tempfile.TemporaryFile() as printed:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": paths, "PYTHONUTF8": "1"},
            **options,
        )
        try:
            code = child.wait()
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
        printed.seek(0)
        return code, printed.read().decode("utf-8", errors="replace")


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _end_of(printed: str) -> str:
    lines = [line for line in printed.splitlines() if line.strip()][-_LOG_LINES:]
    return "".join(f"\n  {line[:300]}" for line in lines)


def _compare(
    chosen: Format, expected: Expected, request: Request, outputs: np.ndarray, result: dict[str, Any]
) -> dict[str, Any]:
    """What verification.json holds.

    Raises:
        CheckFailedError: the artefact differs by more than its limits.
    """
    allowed = verify.limits(request.quantize, request.tolerance)
    samples = expected.samples
    try:
        comparison = verify.compare(
            expected.outputs,
            outputs,
            expected.item.target,
            samples.inputs,
            samples.targets,
            allowed.difference or 1e-4,
        )
    except ValueError as error:
        raise CheckFailedError(f"{chosen.name}: {error}; nothing was written") from error
    if failures := comparison.failures(allowed):
        raise CheckFailedError(
            f"{chosen.name}: the artefact differs from the model on {len(samples)} {compared_on(samples.split)}: "
            f"{'; '.join(failures)}; nothing was written"
        )
    return verify.report(
        comparison,
        allowed,
        {"keras": expected.bytes, "artefact": result["bytes"]},
        {"keras": expected.latency, "artefact": result["latency_ms"]},
        runtime=chosen.runtime,
        quantization=request.quantize,
        split=samples.split,
        examples=len(samples),
    )


_EXAMPLE = (
    "import runpy, sys; sys.modules['dlcli'] = None; sys.argv = sys.argv[1:]; sys.path.insert(0, sys.argv[1]); "
    "sys.argv.pop(1); runpy.run_path(sys.argv[0], run_name='__main__')"
)


def _check_example(partial: Path, chosen: Format, item: Exportable, outputs: np.ndarray) -> None:
    """Runs example.py as its readers will: in a new process, without dlcli.

    Raises:
        CheckFailedError: it does not run, or says something else than the artefact.
    """
    script = str(partial.resolve() / "example.py")
    command = [sys.executable, "-c", _EXAMPLE, script, str(partial.resolve())]
    code, printed = _in_child(command, cwd=partial)
    shutil.rmtree(partial / "__pycache__", ignore_errors=True)
    if code:
        raise CheckFailedError(
            f"{chosen.name}: its example.py does not run; nothing was written{_end_of(printed)}"
        )
    if wrong := sample.unlike(printed, item, outputs):
        raise CheckFailedError(
            f"{chosen.name}: of its example.py: {wrong}; nothing was written{_end_of(printed)}"
        )


def _check_picture(
    partial: Path, chosen: Format, expected: Expected, request: Request, index: int, outputs: np.ndarray
) -> None:
    """Looks at the picture that example.py wrote, of a model of images, and takes it away.

    Raises:
        CheckFailedError: it is not what the artefact, or a denoiser's own sampler, draws.
    """
    item = expected.item
    if item.target not in ("images", "noise"):
        return
    path = partial / PICTURE
    # Many steps add up what a quantized one is off.
    levels = 1.0 if request.quantize is None or item.kind != "noise" else 255.0
    wrong = unlike_picture(path, expected_picture(item, expected.samples, index, outputs), levels)
    path.unlink(missing_ok=True)
    if wrong:
        raise CheckFailedError(f"{chosen.name}: of its example.py: {wrong}; nothing was written")
