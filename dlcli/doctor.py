"""What this machine has: versions, devices and how they are linked, data folders, extras."""

from __future__ import annotations

import os
import platform
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import tensorflow as tf
from packaging.requirements import Requirement
from rich.markup import escape
from rich.table import Table

from dlcli.console import out, print_json
from dlcli.data.cache import cache_folder
from dlcli.errors import DlcliError
from dlcli.interconnect import (
    cluster_signs,
    described_links,
    described_network,
    gpu_links,
    network_interfaces,
)
from dlcli.recipe.schema import Distribution
from dlcli.runs import installed_version
from dlcli.training.distribution import choose, described

PACKAGES = (
    "tensorflow",
    "keras",
    "numpy",
    "pillow",
    "scikit-learn",
    "matplotlib",
    "pydantic",
    "shap",
    "tensorboard",
    "tokenizers",
)


def examine() -> dict[str, Any]:
    """Versions of the packages, devices and their links, where data are looked for, and what each extra lacks."""
    keras_home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    return {
        "dlcli": installed_version("dlcli"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: installed_version(name) for name in PACKAGES},
        "cores": os.cpu_count(),
        "devices": [_device(device) for device in tf.config.list_physical_devices()],
        "distribution": _auto(),
        "gpu_links": gpu_links(),
        "network": network_interfaces(),
        "cluster_environment": cluster_signs(),
        "disk_free_bytes": shutil.disk_usage(Path.cwd()).free,
        "data_folders": {
            str(folder): folder.is_dir()
            for folder in (
                keras_home / "datasets",
                keras_home / "models",
                cache_folder(),
                cache_folder("tokens"),
                cache_folder("features"),
            )
        },
        "extras": _extras(),
    }


def print_examination(found: dict[str, Any], as_json: bool) -> None:
    """Shows what was found."""
    if as_json:
        print_json(found)
        return
    table = Table(show_header=False, box=None)
    table.add_row("dlcli", f"{found['dlcli']} on Python {found['python']}, {found['platform']}")
    table.add_row(
        "packages", ", ".join(f"{name} {version or 'missing'}" for name, version in found["packages"].items())
    )
    table.add_row("devices", f"{', '.join(found['devices'])}; {found['cores']} CPU cores")
    table.add_row("strategy", escape(_strategy(found["distribution"])))
    if found["gpu_links"]:
        table.add_row("GPU links", described_links(found["gpu_links"]))
    table.add_row("network", ", ".join(map(described_network, found["network"])) or "none that is up")
    signs = found["cluster_environment"]
    for name, value in signs.items():
        table.add_row("cluster", escape(f"{name}={value}"))
    if not signs:
        table.add_row("cluster", "no TF_CONFIG, Slurm, Kubernetes or TPU in the environment")
    table.add_row("disk", f"{found['disk_free_bytes'] / 2**30:,.0f} GiB free here")
    for folder, there in found["data_folders"].items():
        table.add_row("data", f"{folder}: {'found' if there else 'not there yet; downloads make it'}")
    for name, extra in found["extras"].items():
        state = (
            f"lacks {', '.join(extra['missing'])}: pip install 'dlcli[{name}]'"
            if extra["missing"]
            else "installed"
        )
        table.add_row("extra", escape(f"{name} ({extra['adds']}): {state}"))
    out.print(table)


def _auto() -> dict[str, Any]:
    """What `distribution.strategy: auto` would take here; `problem` where it would be refused."""
    try:
        choice = choose(Distribution())
    except DlcliError as error:
        return {"problem": str(error)}
    return {
        "strategy": choice.strategy,
        "devices": list(choice.devices),
        "workers": choice.workers,
        "worker": choice.worker,
        "replicas": choice.replicas,
        "why": choice.why,
        "described": described(choice),
    }


def _strategy(auto: dict[str, Any]) -> str:
    if "problem" in auto:
        return f"auto is refused: {auto['problem']}"
    return f"auto takes {auto['strategy']}: {auto['described']} ({auto['why']})"


EXTRAS = {
    "gpu": "CUDA and cuDNN for NVIDIA GPUs",
    "translation": "BLEU",
    "synonyms": "English WordNet",
    "ray": "workers on a Ray cluster",
    "hub": "pretrained models of KerasHub and Hugging Face",
    "onnx": "export to ONNX",
    "litert": "export to LiteRT (TFLite)",
    "openvino": "export to OpenVINO",
    "safetensors": "export of weights",
    "dev": "tests and linters",
}


def _extras() -> dict[str, Any]:
    """From the installed package's own metadata: each extra's requirements that are not installed."""
    extras: dict[str, Any] = {name: {"adds": adds, "missing": []} for name, adds in EXTRAS.items()}
    try:
        requirements = metadata.requires("dlcli") or []
    except metadata.PackageNotFoundError:
        return extras
    for requirement in map(Requirement, requirements):
        marker = requirement.marker
        if marker is None or marker.evaluate({"extra": ""}) or _installed(requirement):
            continue
        for name, extra in extras.items():
            if marker.evaluate({"extra": name}):
                extra["missing"].append(str(requirement).split(";")[0].strip())
    return extras


def _installed(requirement: Requirement) -> bool:
    if "and-cuda" in requirement.extras:
        return installed_version("nvidia-cudnn-cu12") is not None
    return installed_version(requirement.name) is not None


def _device(device: Any) -> str:
    details = tf.config.experimental.get_device_details(device) if device.device_type == "GPU" else {}
    return f"{device.device_type} {details.get('device_name', '')}".strip()
