"""The objects by the public schema, and what that does not say: that they belong together."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from dlcli.errors import DlcliError
from dlcli.launch.kubernetes import KubernetesJob, kubernetes_manifest, name_of, objects
from dlcli.recipe.load import dump_recipe, load_recipe
from dlcli.recipe.yaml_reader import parse_yaml

VERSIONS = ("1.29", "1.33", "1.37")
"""The oldest that has limits for each index, and later ones."""
FULL: dict[str, Any] = {
    "workers": 4,
    "gpus": 2,
    "cpus": "7.5",
    "memory": "60Gi",
    "storage": "100Gi",
    "storage_class": "nfs-client",
    "volumes": {"photos": "/data", "texts": "/texts"},
    "namespace": "research",
    "environment": {"KERAS_HOME": "/runs/keras", "NUMBER": "1e3", "WORD": "y", "DOLLARS": "$(WORD) $$ $x"},
    "node_selector": {"cloud.google.com/gke-accelerator": "nvidia-l4"},
    "shared_memory": "4Gi",
    "max_restarts": 5,
}


def a_job(**options: Any) -> KubernetesJob:
    given = {"recipe": "task: x\n", "name": "digits", "image": "registry.example.com/dlcli:0.1", **options}
    if not {"claim", "storage"} & set(given):
        given["claim"] = "runs"
    return KubernetesJob(**given)


def documents(job: KubernetesJob) -> dict[str, dict[str, Any]]:
    return {each["kind"]: each for each in yaml.safe_load_all(kubernetes_manifest(job))}


def pod_of(job: KubernetesJob) -> dict[str, Any]:
    return documents(job)["Job"]["spec"]["template"]["spec"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "options", [{}, {"workers": 2, "gpus": 1}, FULL], ids=["one pod", "two", "all options"]
)
def test_the_public_schema_takes_every_object(options: dict[str, Any], version: str) -> None:
    schema = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    for document in documents(a_job(**options)).values():
        schema.validate(document, version, strict=True)


def test_the_schema_would_see_a_wrong_object() -> None:
    schema = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    job = documents(a_job(**FULL))["Job"]
    job["spec"]["backoffLimitPerIndexes"] = job["spec"].pop("backoffLimitPerIndex")
    with pytest.raises(schema.ValidationError):
        schema.validate(job, VERSIONS[0], strict=True)


def expanded(container: dict[str, Any], index: int) -> dict[str, str]:
    """The variables of a pod: references to those that stand before are replaced, $$ is $."""
    found: dict[str, str] = {}
    for variable in container["env"]:
        if "valueFrom" in variable:
            path = variable["valueFrom"]["fieldRef"]["fieldPath"]
            assert path == "metadata.annotations['batch.kubernetes.io/job-completion-index']"
            found[variable["name"]] = str(index)
            continue
        found[variable["name"]] = re.sub(
            r"\$\$|\$\((\w+)\)",
            lambda match: "$" if match.group(1) is None else found.get(match.group(1), match.group(0)),
            variable["value"],
        )
    return found


def test_each_pod_knows_the_others_by_the_names_that_the_service_gives_them() -> None:
    job = a_job(**FULL)
    found, spec = documents(job), pod_of(job)
    service, name = found["Service"], found["Job"]["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert spec["subdomain"] == service["metadata"]["name"]
    labels = found["Job"]["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    port = service["spec"]["ports"][0]["port"]
    assert spec["containers"][0]["ports"][0]["containerPort"] == port
    # The Job controller names the host of pod I: NAME-I.
    hosts = [f"{name}-{index}.{spec['subdomain']}:{port}" for index in range(4)]
    for index in range(4):
        config = json.loads(expanded(spec["containers"][0], index)["TF_CONFIG"])
        assert config == {"cluster": {"worker": hosts}, "task": {"type": "worker", "index": index}}
    assert found["Job"]["spec"]["completions"] == found["Job"]["spec"]["parallelism"] == 4
    assert found["Job"]["spec"]["completionMode"] == "Indexed"


def test_one_pod_needs_no_others() -> None:
    found = documents(a_job(gpus=8))
    assert set(found) == {"ConfigMap", "Job"}
    assert "TF_CONFIG" not in kubernetes_manifest(a_job(gpus=8))


def test_variables_are_what_was_given() -> None:
    """Text that a YAML reader could take for a number, and dollars that Kubernetes could take for references."""
    seen = expanded(pod_of(a_job(**FULL))["containers"][0], 0)
    assert FULL["environment"].items() <= seen.items()


@pytest.mark.parametrize(
    "text", ["1e3", "y", "No", "0x1F", "1:20", "null", "~", "1_000", "-", "", "a: b", "é 🙂", " x"]
)
def test_text_stays_text_in_every_yaml(text: str) -> None:
    manifest = kubernetes_manifest(a_job(environment={"X": text}))
    line = next(line for line in manifest.splitlines() if line.strip().startswith("value:"))
    assert re.match(r"\s+value: (['\"]|[A-Za-z/][\w./-]+$)", line), "in quotes, or a word of letters"
    assert yaml.safe_load(line) == parse_yaml(line, "1.2").value == {"value": text}


def test_all_that_a_pod_mounts_is_there() -> None:
    for job in (a_job(**FULL), a_job(workers=2)):
        found, spec = documents(job), pod_of(job)
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        mounts = {mount["mountPath"]: mount for mount in spec["containers"][0]["volumeMounts"]}
        assert set(volumes) == {mount["name"] for mount in mounts.values()}
        assert volumes["recipe"]["configMap"]["name"] == found["ConfigMap"]["metadata"]["name"]
        made = found["PersistentVolumeClaim"]["metadata"]["name"] if job.storage else "runs"
        assert volumes["runs"]["persistentVolumeClaim"]["claimName"] == made
        assert volumes[mounts["/dev/shm"]["name"]]["emptyDir"]["medium"] == "Memory"
        words = [*spec["containers"][0]["command"], *spec["containers"][0]["args"]]
        assert words[:2] == ["dlcli", "train"]
        recipe, run = Path(words[2]), Path(words[words.index("--out") + 1])
        assert recipe.name in found["ConfigMap"]["data"]
        assert str(recipe.parent) in mounts
        assert str(run.parent) in mounts
        assert "--continue" in words
    assert not mounts[str(run.parent)].get("readOnly")


def test_claims_of_data_are_mounted_where_they_shall_be() -> None:
    spec = pod_of(a_job(**FULL))
    claims = {
        each["name"]: each.get("persistentVolumeClaim", {}).get("claimName") for each in spec["volumes"]
    }
    paths = {claims[mount["name"]]: mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]}
    assert (paths["photos"], paths["texts"]) == ("/data", "/texts")


def test_many_pods_write_one_volume() -> None:
    modes = [
        documents(a_job(workers=workers, storage="1Gi"))["PersistentVolumeClaim"]["spec"]["accessModes"]
        for workers in (1, 2)
    ]
    assert modes == [["ReadWriteOnce"], ["ReadWriteMany"]]


def test_the_recipe_travels_whole(tmp_path: Path) -> None:
    recipe = load_recipe("digits_cnn", ["training.epochs=7", "training.seed=3"])
    text = documents(a_job(recipe=dump_recipe(recipe)))["ConfigMap"]["data"]["recipe.yaml"]
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    assert load_recipe(path) == recipe
    assert "\n  recipe.yaml: |\n    task:\n" in kubernetes_manifest(a_job(recipe=dump_recipe(recipe))), (
        "readable"
    )


def test_pods_are_started_again_where_that_helps() -> None:
    spec = documents(a_job(**FULL))["Job"]["spec"]
    assert spec["template"]["spec"]["restartPolicy"] == "Never", "podFailurePolicy takes no other"
    assert spec["podReplacementPolicy"] == "Failed", "two pods would write one run"
    assert (spec["backoffLimitPerIndex"], spec["maxFailedIndexes"]) == (5, 0)
    mistakes, evicted = spec["podFailurePolicy"]["rules"]
    assert mistakes["action"] == "FailJob"
    assert mistakes["onExitCodes"]["values"] == [2, 3]
    assert mistakes["onExitCodes"]["containerName"] == spec["template"]["spec"]["containers"][0]["name"]
    assert (evicted["action"], evicted["onPodConditions"][0]["type"]) == ("Ignore", "DisruptionTarget")


def test_resources_of_a_pod() -> None:
    spec = pod_of(a_job(**FULL))
    resources = spec["containers"][0]["resources"]
    assert resources["requests"] == {"cpu": "7.5", "memory": "60Gi", "nvidia.com/gpu": 2}
    assert resources["limits"] == {"memory": "60Gi", "nvidia.com/gpu": 2}
    assert spec["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert "nvidia" not in json.dumps(objects(a_job()))


@pytest.mark.parametrize("workers", [1, 2, 11, 1000])
@pytest.mark.parametrize(
    "recipe", ["cifar10_cnn", "3d", "Ünï ✓", "-._", "", "x" * 200, "A.B_c--", "a" * 57 + "-b"]
)
def test_names_are_made_that_kubernetes_takes(recipe: str, workers: int) -> None:
    name = name_of(recipe, workers)
    kubernetes_manifest(a_job(name=name, workers=workers))
    label = r"[a-z]([-a-z0-9]*[a-z0-9])?"
    assert re.fullmatch(label, f"{name}-{workers - 1}")
    assert re.fullmatch(label, name)
    assert len(f"{name}-{workers - 1}") <= 63


def test_long_names_stay_different() -> None:
    assert name_of("cifar10_cnn", 4) == "cifar10-cnn"
    assert name_of("x" * 100 + "a", 2) != name_of("x" * 100 + "b", 2)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "Digits_cnn"}, "--name 'Digits_cnn': expected a-z, 0-9 and -"),
        ({"name": "9digits"}, "--name"),
        ({"name": "x" * 62, "workers": 2}, "at most 61"),
        ({"image": "has space"}, "--image"),
        ({"image": "UPPER/Case"}, "--image"),
        ({"image": ""}, "--image"),
        ({"namespace": "a.b"}, "--namespace"),
        ({"cpus": "0"}, "--cpus"),
        ({"cpus": "two"}, "--cpus 'two': expected a number above 0 with a unit of Kubernetes, as 2 or 500m"),
        ({"memory": "8GB"}, "--memory"),
        ({"memory": "0.0Gi"}, "--memory"),
        ({"shared_memory": "-1Gi"}, "--shared-memory"),
        ({"claim": "a", "storage": "1Gi"}, "give one of them"),
        ({"claim": None, "storage": None}, "give one of them"),
        ({"claim": "a", "storage_class": "b"}, "--storage-class is of the claim that --storage makes"),
        ({"claim": "A"}, "--claim"),
        ({"volumes": {"data": "data"}}, "--volume data:data: expected CLAIM:PATH"),
        ({"volumes": {"data": "/a/../runs"}}, "--volume data:/a/../runs"),
        ({"volumes": {"data": "/runs/data"}}, "/runs is the place of the run folder"),
        ({"volumes": {"data": "/etc"}}, "/etc/dlcli is the place of the recipe"),
        ({"volumes": {"one": "/data", "two": "/data/x"}}, "/data is the place of the claim one"),
        ({"claim": "data", "volumes": {"data": "/data"}}, "is --claim already"),
        ({"environment": {"1X": "a"}}, "--env 1X=a"),
        ({"environment": {"TF_CONFIG": "{}"}}, "--env TF_CONFIG"),
        ({"environment": {"X": "a\nb"}}, "--env X='a\\nb'"),
        ({"node_selector": {"a b": "c"}}, "--node-selector a b=c"),
        ({"gpu_resource": "nvidia com"}, "--gpu-resource"),
        ({"recipe": "x" * 1_000_001}, "1,000,001 bytes"),
    ],
)
def test_options_that_kubernetes_would_not_take_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(DlcliError) as caught:
        kubernetes_manifest(a_job(**options))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "image",
    ["dlcli", "dlcli:0.1", "localhost:5000/a/b-c_d:V1.0", "nvcr.io/x/y@sha256:" + "0" * 64, "r.io/a__b/c:1"],
)
def test_images_are_taken(image: str) -> None:
    assert pod_of(a_job(image=image))["containers"][0]["image"] == image
