"""The objects of a training on Kubernetes: an Indexed Job, whose pods find each other through a headless Service.

Pod 0 is the chief. All of them train, or none does: when one dies, the others notice within about eleven seconds and
end too, and the Job starts each again, to go on from the last checkpoint. A pod that is evicted costs nothing; what no
other start would mend (exit codes 2 and 3) ends the Job at once. That takes Kubernetes 1.29 or later, which counts the
restarts of each index.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from dlcli.errors import DlcliError

PORT = 2222
MOUNT = "/runs"
"""Where the volume of the run folders is in each pod."""
_RECIPES = "/etc/dlcli"
_NO_FOLDS = 10**9
_LONGEST = 63
_MOST_BYTES = 1_000_000
"""Of a ConfigMap; the server refuses more than 1 MiB."""
_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_QUANTITY = re.compile(r"(?!0+(\.0*)?[A-Za-z]*$)\d{1,12}(\.\d{1,6})?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_QUALIFIED = re.compile(r"([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
_IMAGE = re.compile(
    r"([A-Za-z0-9.-]+(:\d{1,5})?/)?[a-z0-9]+([._/-]+[a-z0-9]+)*(:[\w][\w.-]{0,127})?(@sha256:[0-9a-f]{64})?",
    re.ASCII,
)


@dataclass(frozen=True)
class KubernetesJob:
    """What the manifest asks for.

    Args:
        recipe: resolved, as YAML.
        name: of the Job, its Service and its run folder; see `name_of`.
        image: in which `dlcli` is.
        workers: pods.
        gpus: of each pod.
        cpus: each pod asks for; it may use more where there are.
        memory: of each pod, which ends where it takes more.
        claim: a PersistentVolumeClaim that is there, for the run folder; None makes one.
        storage: size of the claim that is made.
        storage_class: of the claim that is made; None is the cluster's default.
        volumes: claim -> path, for data sets.
        namespace: None is that of kubectl.
        environment: variables.
        node_selector: label -> value.
        gpu_resource: what the cluster calls a GPU.
        shared_memory: size of /dev/shm, through which NCCL copies between the GPUs of a pod; a part of `memory`.
        max_restarts: of each pod.
        grace: seconds to save in, when a pod is asked to end.
    """

    recipe: str
    name: str
    image: str
    workers: int = 1
    gpus: int = 0
    cpus: str = "2"
    memory: str = "8Gi"
    claim: str | None = None
    storage: str | None = None
    storage_class: str | None = None
    volumes: Mapping[str, str] = field(default_factory=dict)
    namespace: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    node_selector: Mapping[str, str] = field(default_factory=dict)
    gpu_resource: str = "nvidia.com/gpu"
    shared_memory: str = "1Gi"
    max_restarts: int = 3
    grace: int = 180


def name_of(recipe: str, workers: int) -> str:
    """A name that Kubernetes takes, made of a recipe's: `cifar10_cnn` -> `cifar10-cnn`.

    Args:
        recipe: any name.
        workers: how many there are: a pod's number is added to the name, and both together have 63 letters at most.
    """
    longest = _longest(workers)
    name = re.sub(r"[^a-z0-9]+", "-", recipe.lower()).strip("-")
    if not name[:1].isalpha():
        name = f"dlcli-{name}".strip("-")
    if len(name) > longest:
        mark = hashlib.sha256(recipe.encode(errors="backslashreplace")).hexdigest()[:8]
        name = f"{name[: longest - 9].strip('-')}-{mark}"
    return name


def kubernetes_manifest(job: KubernetesJob) -> str:
    """YAML for `kubectl apply --filename`.

    Raises:
        DlcliError: an option is none that Kubernetes would take.
    """
    _check(job)
    documents = [
        yaml.dump(each, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_NO_FOLDS)
        for each in objects(job)
    ]
    return _header(job) + "---\n".join(documents)


def objects(job: KubernetesJob) -> list[dict[str, Any]]:
    """The objects, in the order in which they are needed."""
    found = [_config_map(job)]
    if job.storage:
        found.append(_claim(job))
    if job.workers > 1:
        found.append(_service(job))
    return [*found, _job(job)]


def _header(job: KubernetesJob) -> str:
    kinds = "configmap,service,job" if job.workers > 1 else "configmap,job"
    space = f" --namespace {job.namespace}" if job.namespace else ""
    kept = f"\n# That keeps the claim {job.name}-runs, in which the run is." if job.storage else ""
    pods = "1 pod" if job.workers == 1 else f"{job.workers} pods"
    return (
        f"# {job.name}: {pods}; written by dlcli manifest kubernetes, for Kubernetes 1.29 or later.\n"
        f"# Start:  kubectl apply --filename FILE\n"
        f"# Follow: kubectl logs{space} --follow --selector batch.kubernetes.io/job-name={job.name} --prefix\n"
        f"# Clear:  kubectl delete{space} {kinds} {job.name}{kept}\n"
        f"# Started again after that, it goes on with the run in {MOUNT}/{job.name}.\n"
    )


def _metadata(job: KubernetesJob, name: str | None = None) -> dict[str, Any]:
    space = {"namespace": job.namespace} if job.namespace else {}
    return {"name": name or job.name, **space, "labels": _labels(job)}


def _labels(job: KubernetesJob) -> dict[str, str]:
    return {"app.kubernetes.io/name": "dlcli", "app.kubernetes.io/instance": job.name}


def _config_map(job: KubernetesJob) -> dict[str, Any]:
    """The recipe: immutable, since pods that start later must not see another one."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(job),
        "immutable": True,
        "data": {"recipe.yaml": job.recipe},
    }


def _claim(job: KubernetesJob) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "accessModes": ["ReadWriteMany" if job.workers > 1 else "ReadWriteOnce"],
        "resources": {"requests": {"storage": job.storage}},
    }
    if job.storage_class:
        spec["storageClassName"] = job.storage_class
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": _metadata(job, f"{job.name}-runs"),
        "spec": spec,
    }


def _service(job: KubernetesJob) -> dict[str, Any]:
    """Gives each pod a name in DNS; before it is ready too, since it is ready only when all have found each other."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(job),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": _labels(job),
            "ports": [{"name": "grpc", "port": PORT}],
        },
    }


def _job(job: KubernetesJob) -> dict[str, Any]:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _metadata(job),
        "spec": {
            "completionMode": "Indexed",
            "completions": job.workers,
            "parallelism": job.workers,
            # The end of one pod ends all others, so that each is started as often as the whole.
            "backoffLimitPerIndex": job.max_restarts,
            "maxFailedIndexes": 0,
            # Not before the old pod is gone: it may still be saving.
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {
                "rules": [
                    {
                        "action": "FailJob",
                        "onExitCodes": {"containerName": "dlcli", "operator": "In", "values": [2, 3]},
                    },
                    {
                        "action": "Ignore",
                        "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
                    },
                ]
            },
            "template": {"metadata": {"labels": _labels(job)}, "spec": _pod(job)},
        },
    }


def _pod(job: KubernetesJob) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "restartPolicy": "Never",  # the Job starts a new pod, and counts
        "terminationGracePeriodSeconds": job.grace,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        # The system keeps SIGTERM from a process 1 that does not handle it: as dlcli, while it waits for the others.
        "shareProcessNamespace": True,
        "containers": [_container(job)],
        "volumes": _volumes(job),
    }
    if job.workers > 1:
        spec["subdomain"] = job.name
    if job.node_selector:
        spec["nodeSelector"] = dict(job.node_selector)
    if job.gpus:
        spec["tolerations"] = [{"key": job.gpu_resource, "operator": "Exists", "effect": "NoSchedule"}]
    return spec


def _container(job: KubernetesJob) -> dict[str, Any]:
    gpus = {job.gpu_resource: job.gpus} if job.gpus else {}
    container: dict[str, Any] = {
        "name": "dlcli",
        "image": job.image,
        # No shell in between: the image needs none, and dlcli itself is told to end, and saves.
        "command": ["dlcli", "train", f"{_RECIPES}/recipe.yaml"],
        "args": ["--out", f"{MOUNT}/{job.name}", "--continue"],
        "env": _environment(job),
        "resources": {
            "requests": {"cpu": job.cpus, "memory": job.memory, **gpus},
            "limits": {"memory": job.memory, **gpus},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "recipe", "mountPath": _RECIPES, "readOnly": True},
            {"name": "runs", "mountPath": MOUNT},
            {"name": "shared-memory", "mountPath": "/dev/shm"},  # noqa: S108  no file of ours
            *(
                {"name": f"data-{number}", "mountPath": path, "readOnly": True}
                for number, path in enumerate(job.volumes.values())
            ),
        ],
    }
    if job.workers > 1:
        container["ports"] = [{"name": "grpc", "containerPort": PORT}]
    return container


def _environment(job: KubernetesJob) -> list[dict[str, Any]]:
    """Variables; those of the user are taken as they are, not as references to others."""
    found: list[dict[str, Any]] = [
        {"name": name, "value": value.replace("$", "$$")} for name, value in job.environment.items()
    ]
    if job.workers == 1:
        return found
    # Named here, and not left to the Job: a variable can hold only those that stand before it.
    index = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    found.append({"name": "JOB_COMPLETION_INDEX", "valueFrom": {"fieldRef": {"fieldPath": index}}})
    found.append({"name": "TF_CONFIG", "value": _tf_config(job)})
    return found


def _tf_config(job: KubernetesJob) -> str:
    """TF_CONFIG, with a reference to the pod's number in the place of one."""
    workers = [f"{job.name}-{index}.{job.name}:{PORT}" for index in range(job.workers)]
    task = {"type": "worker", "index": 0}
    text = json.dumps({"cluster": {"worker": workers}, "task": task})
    return text.removesuffix("0}}") + "$(JOB_COMPLETION_INDEX)}}"


def _volumes(job: KubernetesJob) -> list[dict[str, Any]]:
    runs = job.claim or f"{job.name}-runs"
    return [
        {"name": "recipe", "configMap": {"name": job.name}},
        {"name": "runs", "persistentVolumeClaim": {"claimName": runs}},
        {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": job.shared_memory}},
        *(
            {"name": f"data-{number}", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
            for number, claim in enumerate(job.volumes)
        ),
    ]


def _longest(workers: int) -> int:
    return _LONGEST - len(f"-{workers - 1}")


def _check(job: KubernetesJob) -> None:
    """Refuses what the server would refuse, and what it would take and pods would fail on."""
    longest = _longest(job.workers)
    _match("--name", job.name, _LABEL, f"a-z, 0-9 and -, beginning with a letter, at most {longest}", longest)
    _match("--image", job.image, _IMAGE, "an image as registry.example.com/dlcli:0.1", 500)
    _match("--namespace", job.namespace, _LABEL_OF_SPACE, "a-z, 0-9 and -, at most 63", _LONGEST)
    _match("--gpu-resource", job.gpu_resource, _QUALIFIED, "a name as nvidia.com/gpu", 317)
    for option, name in (("--claim", job.claim), ("--storage-class", job.storage_class)):
        _match(option, name, _SUBDOMAIN, "a name of a-z, 0-9, - and .", 253)
    sizes = {
        "--cpus": (job.cpus, "2 or 500m"),
        "--memory": (job.memory, "16Gi"),
        "--storage": (job.storage, "100Gi"),
        "--shared-memory": (job.shared_memory, "1Gi"),
    }
    for option, (size, example) in sizes.items():
        _match(option, size, _QUANTITY, f"a number above 0 with a unit of Kubernetes, as {example}", 30)
    if (job.claim is None) == (job.storage is None):
        raise DlcliError(
            "the run folder needs a volume that all pods can write to: --claim NAME takes a PersistentVolumeClaim that "
            "is there, --storage SIZE makes one; give one of them"
        )
    if job.storage_class and not job.storage:
        raise DlcliError("--storage-class is of the claim that --storage makes: give --storage SIZE too")
    _check_volumes(job)
    _check_environment(job)
    for label, value in job.node_selector.items():
        given = f"{label}={value}"
        if not (_QUALIFIED.fullmatch(label) and _LABEL_VALUE.fullmatch(value)):
            raise DlcliError(f"--node-selector {given}: expected a label as gpu-type=a100")
    many = len(job.recipe.encode(errors="backslashreplace"))
    if many > _MOST_BYTES:
        raise DlcliError(
            f"the recipe has {many:,} bytes, and a ConfigMap holds {_MOST_BYTES:,} at most; shorten it"
        )


_LABEL_OF_SPACE = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


def _match(option: str, value: str | None, form: re.Pattern[str], expected: str, longest: int) -> None:
    if value is not None and (len(value) > longest or not form.fullmatch(value)):
        raise DlcliError(f"{option} {value!r}: expected {expected}")


def _check_volumes(job: KubernetesJob) -> None:
    taken = {MOUNT: "the run folder", _RECIPES: "the recipe", "/dev/shm": "shared memory"}  # noqa: S108  not a file
    for claim, path in job.volumes.items():
        _match("--volume", claim, _SUBDOMAIN, "CLAIM:PATH, with the name of a PersistentVolumeClaim", 253)
        plain = re.fullmatch(r"(/[\w.-]+)+", path, re.ASCII) and ".." not in path.split("/")
        if not plain:
            raise DlcliError(
                f"--volume {claim}:{path}: expected CLAIM:PATH, with a path from the root as /data"
            )
        for other, what in taken.items():
            if f"{path}/".startswith(f"{other}/") or f"{other}/".startswith(f"{path}/"):
                raise DlcliError(
                    f"--volume {claim}:{path}: {other} is the place of {what}; take another path"
                )
        taken[path] = f"the claim {claim}"
        if claim == job.claim:
            raise DlcliError(f"--volume {claim}: is --claim already, which pods see at {MOUNT}")


def _check_environment(job: KubernetesJob) -> None:
    for name, value in job.environment.items():
        if not _VARIABLE.fullmatch(name):
            raise DlcliError(f"--env {name}={value}: expected a name of letters, digits and _")
        if name in ("TF_CONFIG", "JOB_COMPLETION_INDEX"):
            raise DlcliError(f"--env {name}: is what the manifest tells each pod itself; leave it out")
        if not value.isprintable():
            raise DlcliError(f"--env {name}={value!r}: expected printable text, without line breaks")


class _Dumper(yaml.SafeDumper):
    """Writes text so that every reader takes it for text: Kubernetes' own reads `1e3` and `y` otherwise than PyYAML."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        """Plain where it begins with a letter and is a word, a block where it has lines, else in quotes."""
        style = None if re.fullmatch(r"[A-Za-z/][\w./-]+", text, re.ASCII) else "'"
        if "\n" in text:
            style = "|"
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    def ignore_aliases(self, data: Any) -> bool:
        """Repeats what occurs twice, since people read and change this."""
        return True


_Dumper.add_representer(str, _Dumper.represent_text)
