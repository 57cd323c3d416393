"""`dlcli manifest`: files that start a training on a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dlcli.cli.options import JsonOption, RecipeArgument, SetOption
from dlcli.errors import DlcliError

if TYPE_CHECKING:
    from dlcli.recipe.schema import Recipe

app = typer.Typer(
    help="Files that start a training on a cluster: for Slurm, for Kubernetes.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

OutOption = Annotated[Path | None, typer.Option(help="Write it to this file. Default: print it.")]
MaxRestartsOption = Annotated[
    int,
    typer.Option(min=0, max=100, help="When a process is killed, start all again from the last checkpoint."),
]
GraceOption = Annotated[
    int, typer.Option(min=60, max=3600, metavar="SECONDS", help="To save in, before the job is ended.")
]


@app.command()
def slurm(
    recipe: RecipeArgument,
    nodes: Annotated[int, typer.Option(min=1, max=10_000, help="Machines, each with one process.")] = 1,
    gpus: Annotated[int, typer.Option(min=0, max=64, help="GPUs of each node.")] = 0,
    cpus: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Cores of each node. Default: whole nodes.")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(help="Of each node: 64G. Default: all, of whole nodes.")
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(
            help="Limit, as 24:00:00; the training saves, is queued again and goes on. Default: the partition's."
        ),
    ] = None,
    partition: Annotated[str | None, typer.Option(help="Where it is queued.")] = None,
    account: Annotated[str | None, typer.Option(help="Who pays.")] = None,
    sbatch: Annotated[
        list[str] | None,
        typer.Option(metavar="OPTION", help="A further option of sbatch: --sbatch=--constraint=a100"),
    ] = None,
    setup: Annotated[
        list[str] | None,
        typer.Option(metavar="LINE", help='Shell that comes first: --setup "module load cuda"'),
    ] = None,
    pyxis: Annotated[
        str | None, typer.Option(metavar="IMAGE", help="Run in this image, by srun's Pyxis plugin.")
    ] = None,
    apptainer: Annotated[
        str | None, typer.Option(metavar="IMAGE", help="Run in this image, by Apptainer.")
    ] = None,
    mount: Annotated[
        list[str] | None,
        typer.Option(metavar="FOLDER", help="A folder that the image needs beside this one."),
    ] = None,
    run: Annotated[
        str | None,
        typer.Option(help="The run folder, seen by all nodes. Default: runs/RECIPE-JOB, JOB Slurm's number."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the job. Default: the recipe's.")] = None,
    max_restarts: MaxRestartsOption = 3,
    grace: GraceOption = 180,
    set_: SetOption = None,
    out: OutOption = None,
    json_: JsonOption = False,
) -> None:
    """Write the file for sbatch: one process a node, with all GPUs of it.

    It runs in the folder where you are now, which all nodes must see; recipe and data are named from there.

    Example: dlcli manifest slurm recipes/resnet.yaml --nodes 4 --gpus 8 --time 24:00:00 --out job.sh

    Example: dlcli manifest slurm digits_cnn --nodes 2 --cpus 8 --setup "source venv/bin/activate" | sbatch
    """
    from dlcli.launch.slurm import SlurmJob, slurm_manifest

    _checked(recipe, set_ or (), processes=nodes)
    own = {"partition": partition, "account": account}
    job = SlurmJob(
        recipe=recipe,
        name=name if name is not None else _plain(_name(recipe)),
        folder=Path.cwd(),
        changes=set_ or (),
        run=run,
        nodes=nodes,
        gpus=gpus,
        cpus=cpus,
        memory=memory,
        time=time,
        options=[*(f"--{key}={value}" for key, value in own.items() if value is not None), *(sbatch or ())],
        setup=setup or (),
        pyxis=pyxis,
        apptainer=apptainer,
        mounts=mount or (),
        max_restarts=max_restarts,
        grace=grace,
    )
    _give(slurm_manifest(job), out, json_, "slurm")


@app.command()
def kubernetes(
    recipe: RecipeArgument,
    image: Annotated[str, typer.Option(help="In which dlcli is, as registry.example.com/dlcli:0.1")],
    workers: Annotated[
        int, typer.Option("--workers", "-n", min=1, max=1000, help="Pods that train together.")
    ] = 1,
    gpus: Annotated[int, typer.Option(min=0, max=64, help="GPUs of each pod.")] = 0,
    cpus: Annotated[str, typer.Option(help="Cores that each pod asks for; it may use more.")] = "2",
    memory: Annotated[str, typer.Option(help="Of each pod.")] = "8Gi",
    claim: Annotated[
        str | None, typer.Option(help="A PersistentVolumeClaim that is there, for the run folder.")
    ] = None,
    storage: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Make the claim for the run folder: 100Gi.")
    ] = None,
    storage_class: Annotated[str | None, typer.Option(help="Of the claim that is made.")] = None,
    volume: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CLAIM:PATH", help="Data: a claim that is there, and where pods see it (read only)."
        ),
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A variable of the pods.")
    ] = None,
    node_selector: Annotated[
        list[str] | None, typer.Option(metavar="LABEL=VALUE", help="Only nodes with this label.")
    ] = None,
    gpu_resource: Annotated[str, typer.Option(help="What the cluster calls a GPU.")] = "nvidia.com/gpu",
    shared_memory: Annotated[str, typer.Option(help="Size of /dev/shm, a part of --memory.")] = "1Gi",
    namespace: Annotated[str | None, typer.Option(help="Default: kubectl's.")] = None,
    name: Annotated[
        str | None, typer.Option(help="Of the Job, its Service and its run folder. Default: the recipe's.")
    ] = None,
    max_restarts: MaxRestartsOption = 3,
    grace: GraceOption = 180,
    set_: SetOption = None,
    out: OutOption = None,
    json_: JsonOption = False,
) -> None:
    """Write a Job for kubectl, with its Service, recipe and volume.

    The recipe travels inside, as it is now; its paths are those of the pods, as --volume says.

    Example: dlcli manifest kubernetes cifar10_cnn --workers 4 --gpus 1 --image registry.example.com/dlcli:0.1
    --storage 100Gi --out job.yaml

    Example: dlcli manifest kubernetes my.yaml --image dlcli:0.1 --claim runs --volume photos:/data
    --set dataset.path=/data
    """
    from dlcli.launch.kubernetes import KubernetesJob, kubernetes_manifest, name_of
    from dlcli.recipe.load import dump_recipe

    checked = _checked(recipe, set_ or (), processes=workers)
    job = KubernetesJob(
        recipe=dump_recipe(checked),
        name=name if name is not None else name_of(_name(recipe), workers),
        image=image,
        workers=workers,
        gpus=gpus,
        cpus=cpus,
        memory=memory,
        claim=claim,
        storage=storage,
        storage_class=storage_class,
        volumes=_pairs("--volume", volume, ":", "CLAIM:PATH"),
        namespace=namespace,
        environment=_pairs("--env", env, "=", "NAME=VALUE"),
        node_selector=_pairs("--node-selector", node_selector, "=", "LABEL=VALUE"),
        gpu_resource=gpu_resource,
        shared_memory=shared_memory,
        max_restarts=max_restarts,
        grace=grace,
    )
    _give(kubernetes_manifest(job), out, json_, "kubernetes")


def _checked(recipe: str, changes: Sequence[str], processes: int) -> Recipe:
    """The recipe, which must be one that so many processes can train.

    Raises:
        DlcliError: with all mistakes, those of several workers too.
    """
    from dlcli.recipe.load import load_recipe

    loaded = load_recipe(recipe, changes)
    strategy = loaded.distribution.strategy
    if processes == 1 and strategy == "multi_worker":
        raise DlcliError(
            "distribution.strategy multi_worker is for several processes; here is one: take auto, or more of them"
        )
    if processes == 1:
        return loaded
    if strategy not in ("auto", "multi_worker"):
        raise DlcliError(
            f"distribution.strategy {strategy} trains in one process, and here are {processes}: take auto, by "
            "--set distribution.strategy=auto"
        )
    # What `auto` will be there: whatever the recipe has that several workers cannot do is said now.
    load_recipe(recipe, [*changes, "distribution.strategy=multi_worker"])
    return loaded


def _pairs(option: str, given: Sequence[str] | None, mark: str, form: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given or ():
        key, separator, value = text.partition(mark)
        if not separator:
            raise DlcliError(f"{option} {text}: expected {form}")
        if key in found:
            raise DlcliError(f"{option} {text}: {key} is given twice")
        found[key] = value
    return found


def _name(recipe: str) -> str:
    from dlcli.cli.train import run_name

    return run_name(recipe)


def _plain(name: str) -> str:
    """A name of a job: what Slurm's file names cannot hold becomes -."""
    import re

    return re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII).strip("-.") or "dlcli"


def _give(text: str, out: Path | None, json_: bool, kind: str) -> None:
    """Writes the manifest, or prints it."""
    from dlcli.console import print_json
    from dlcli.files import write_text

    if out is not None:
        if out.is_dir():
            raise DlcliError(f"--out {out}: is a folder; give a file")
        write_text(out, text)
    if json_:
        print_json({"kind": kind, "path": str(out) if out is not None else None, "manifest": text})
    elif out is not None:
        typer.echo(str(out))
    else:
        typer.echo(text, nl=False)
