"""One export in a process of its own: converters print, leak and crash, and take with them only this process.

`python -m dlcli.export.worker JOB`: JOB is a folder with job.json (a `Job`), samples.npz, calibration.npz where it is
needed, and files/, which are copied beside the artefact. Written are stage.txt (what is being done), and in the end
outputs.npy with result.json, or error.json.
"""

from __future__ import annotations

import json
import pkgutil
import shutil
import sys
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlcli.errors import DlcliError

if TYPE_CHECKING:
    from dlcli.export.format import Format, Quantize


@dataclass(frozen=True)
class Job:
    """What a worker is asked to do."""

    run: str
    """The run's folder."""
    format: str
    """Where the format is: `dlcli.export.onnx_graph:FORMAT`."""
    folder: str
    """The artefact's, empty."""
    common: dict[str, Any]
    """Of the manifest, from `dlcli.export.manifest.about`."""
    batch_size: int | None
    quantize: Quantize | None

    def save(self, folder: Path) -> None:
        """Writes job.json."""
        (folder / "job.json").write_text(json.dumps(asdict(self)), encoding="utf-8")


def main(folder: Path) -> int:
    """Does the job in this folder; 1 when it could not be done, and error.json says why."""
    from dlcli.backend import load_backend

    job = Job(**json.loads((folder / "job.json").read_text(encoding="utf-8")))
    try:
        load_backend()
        _work(job, folder)
    except Exception as error:  # noqa: BLE001  converters raise anything; the parent tells the user
        traceback.print_exc()
        expected = isinstance(error, DlcliError)
        reason = str(error) if expected else f"{type(error).__name__}: {_first_line(error)}"
        _write(folder / "error.json", {"expected": expected, "reason": reason})
        return 1
    return 0


def _work(job: Job, folder: Path) -> None:
    import numpy as np
    import tensorflow as tf

    from dlcli.export.exportable import exportable
    from dlcli.export.format import Options
    from dlcli.export.manifest import manifest, write_manifest
    from dlcli.export.verify import latencies
    from dlcli.runs import load_run

    tf.config.experimental.enable_tensor_float_32_execution(False)  # 10 bits would hide what is compared
    _say(folder, "reading the run")
    chosen: Format = pkgutil.resolve_name(job.format)
    item, target = exportable(load_run(job.run)), Path(job.folder)
    options = Options(job.batch_size, job.quantize, _arrays(folder / "calibration.npz"))
    _say(folder, "writing the artefact")
    written = chosen.write(item, target, options)
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    shutil.copytree(folder / "files", target, dirs_exist_ok=True)
    described = manifest(job.common, chosen, item, options, written)
    write_manifest(target, described)
    (target / "example.py").write_text(chosen.example(described), encoding="utf-8")

    _say(folder, f"running the artefact with {chosen.runtime}")
    described = json.loads(
        (target / "manifest.json").read_text(encoding="utf-8")
    )  # as every other program reads it
    run = chosen.load(target, described)
    samples = _arrays(folder / "samples.npz") or {}
    np.save(folder / "outputs.npy", np.asarray(run(samples), np.float32))
    _say(folder, f"timing {chosen.runtime}")
    _write(folder / "result.json", {"bytes": size, "latency_ms": latencies(run, samples)})


def _arrays(path: Path) -> dict[str, Any] | None:
    import numpy as np

    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as stored:
        return dict(stored)


def _say(folder: Path, stage: str) -> None:
    (folder / "stage.txt").write_text(stage, encoding="utf-8")


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")[:400]


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
