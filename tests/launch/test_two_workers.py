"""Processes that train together through `dlcli launch`, with the numbers of one device; killed, they go on alike."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from kill_harness import state_of
from team import Team, Watch, largest_difference, numbers_of, states_of

from dlcli import console
from dlcli.cli.main import main
from dlcli.launch import workers as processes
from dlcli.launch.environment import free_ports, tf_config
from dlcli.recipe.load import load_recipe

DIGITS = """
task: image_classification
dataset: {name: digits, validation_split: 0.1, augmentation: [{name: random_translation, height_factor: 0.1, width_factor: 0.1}]}
architecture: {name: cnn, filters: [4], dense: [8], normalization: none}
optimizer: {name: adam, learning_rate: 2e-3}
training: {epochs: 2, batch_size: 101, seed: 3, checkpoint: {every_steps: 5}}
"""
"""1,293 images in 13 batches, the last one odd: 81."""
STEPS = 13


@pytest.fixture(autouse=True)
def _no_gpus_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    monkeypatch.delenv("TF_CONFIG", raising=False)


def launch(*words: object) -> tuple[int, str]:
    """`dlcli launch WORDS`, whose workers can be watched: exit code, stderr."""
    err, program = io.StringIO(), Path(__file__).with_name("team.py")
    with (
        mock.patch.object(processes, "dlcli_command", lambda *given: [sys.executable, str(program), *given]),
        mock.patch.object(sys, "argv", ["dlcli", "launch", *map(str, words)]),
        mock.patch.object(console.console, "quiet", False),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    return int(ended.value.code or 0), err.getvalue()


def written(folder: Path, text: str, name: str = "recipe") -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return path


def check_equal(one: Path, two: Path, tolerance: float = 1e-6) -> None:
    """Two runs have learnt the same, up to the order of sums."""
    first, second = numbers_of(one), numbers_of(two)
    difference = largest_difference(first["arrays"], second["arrays"])
    assert difference <= tolerance, f"weights differ by {difference:.1e}"
    assert first["history"].keys() == second["history"].keys()
    for name, values in first["history"].items():
        if name not in ("seconds", "examples_per_second"):
            np.testing.assert_allclose(second["history"][name], values, rtol=10 * tolerance, err_msg=name)
    for name, value in first["metrics"].items():
        np.testing.assert_allclose(second["metrics"][name], value, rtol=1e-4, atol=1e-6, err_msg=name)


def check_alike(folder: Path, workers: int = 2) -> None:
    """All workers held the same, bit by bit, whenever a state was saved."""
    found = states_of(folder)
    assert found
    for place, digests in found.items():
        assert len(digests) == workers, f"{place}: {len(digests)} of {workers} workers saved"
        assert len(set(digests)) == 1, f"{place}: the workers differ"


def check_same(run: Path, expected: Path) -> None:
    """Two runs of as many workers have learnt the same, bit by bit.

    An epoch's mean loss has a sum in each worker, whose last digit differs where only their sum was saved in between.
    """
    found, wanted = state_of(run), state_of(expected)
    rows = [
        [*state.pop("history"), *state["progress"]["callbacks"].pop("History")] for state in (found, wanted)
    ]
    for part, value in wanted.items():
        assert found[part] == value, f"{part} differs"
    for here, there in zip(*rows, strict=True):
        assert here.keys() == there.keys()
        values = [[float(value or "nan") for value in row.values()] for row in (here, there)]
        np.testing.assert_allclose(*values, rtol=1e-6, atol=1e-6)


def test_two_workers_learn_what_one_device_learns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], no_pictures: None
) -> None:
    from dlcli.training.train import train

    recipe, watch = written(tmp_path, DIGITS), Watch(str(tmp_path / "watch"))
    for name, value in watch.variables().items():
        monkeypatch.setenv(name, value)
    code, said = launch(recipe, "--workers", 2, "--out", tmp_path / "two", "--json")
    assert code == 0, said
    report = json.loads(capfd.readouterr().out)  # one object, of one worker
    assert report["run"] == str(tmp_path / "two")
    lines = said.splitlines()
    assert any(line.startswith("[0] epoch 2/2") for line in lines) and not any(
        "[1]" in line for line in lines
    )
    check_alike(tmp_path / "watch")
    assert len(states_of(tmp_path / "watch")) == 2 + 2 * STEPS // 5

    train(load_recipe(recipe), "one", tmp_path / "one")
    check_equal(tmp_path / "one", tmp_path / "two")
    files = [
        {str(path.relative_to(run)) for path in run.rglob("*") if "events" not in path.name}
        for run in (tmp_path / "one", tmp_path / "two")
    ]
    assert files[0] == files[1], "one run folder, as one process leaves it"


# What holds for other recipes; slow: a process that imports TensorFlow forks the workers.

TEXTS = "dataset: {name: text_folder, path: texts, tokenizer: word, max_length: 12}"
CASES: dict[str, tuple[str, float | None]] = {
    "everything": (
        """
task: image_classification
dataset: {name: digits, validation_split: 0.1, augmentation: [{name: mix_up, alpha: 0.4}, {name: random_crop, padding: 1}]}
architecture: {name: cnn, filters: [4], dense: [8], normalization: none}
optimizer: {name: sgd, learning_rate: 0.05, momentum: 0.9}
schedule: {name: cosine_decay, warmup_epochs: 1}
regularization: {l2: 1e-3, label_smoothing: 0.1, class_weights: balanced, gradient_clipping: {norm: 0.5}, ema: 0.9}
training: {epochs: 3, batch_size: 101, gradient_accumulation: 3, checkpoint: {every_steps: 5}}
""",
        1e-6,
    ),
    "normalized_parts": (
        """
task: image_classification
dataset: {name: digits, validation_split: 0.1}
architecture: {name: cnn, filters: [4], dense: [8]}
optimizer: {name: muon, learning_rate: 1e-2}
training: {epochs: 2, batch_size: 76, gradient_accumulation: 3, checkpoint: {every_steps: 5}}
""",
        None,
    ),
    "empty_part": (
        """
task: image_classification
dataset: {name: digits, validation_split: 0.1}
architecture: {name: cnn, filters: [4], dense: [8]}
optimizer: {name: sgd, learning_rate: 0.05}
training: {epochs: 3, batch_size: 76, checkpoint: {every_steps: 7}}
""",  # 1,293 = 17 * 76 + 1
        1e-5,
    ),
    "local_normalization": (
        """
task: image_classification
dataset: {name: digits, validation_split: 0.1}
architecture: {name: resnet, depth: 8, normalization: batch_local}
optimizer: {name: sgd, learning_rate: 0.05}
training: {epochs: 2, batch_size: 101, checkpoint: {every_steps: 5}}
""",
        None,
    ),
    "dropout": (
        """
task: image_classification
dataset: {name: digits, validation_split: 0.1}
architecture: {name: cnn, filters: [4], dense: [8]}
optimizer: {name: adamw, learning_rate: 2e-3}
schedule: reduce_on_plateau
regularization: {dropout: 0.3, early_stopping: {patience: 1}, ema: 0.9}
training: {epochs: 3, batch_size: 101, checkpoint: {every_steps: 4}}
""",
        None,
    ),
    "table": (
        """
task: tabular_classification
dataset: {name: breast_cancer}
architecture: {name: mlp, hidden: [16]}
optimizer: {name: adamw, learning_rate: 5e-3}
regularization: {early_stopping: {patience: 1, min_delta: 0.05}}
training: {epochs: 8, batch_size: 32, steps_per_epoch: 10, steps_per_execution: 2, checkpoint: {every_steps: 3}}
""",
        1e-6,
    ),
    "lstm": (
        f"""
task: text_classification
{TEXTS[:-1]}, augmentation: [{{name: random_deletion, rate: 0.2}}]}}
architecture: {{name: rnn, cell: lstm, units: [8], embedding_width: 8}}
optimizer: {{name: lion, learning_rate: 1e-3}}
training: {{epochs: 3, batch_size: 7, checkpoint: {{every_steps: 3}}}}
""",
        1e-6,
    ),
    "unigram": (
        f"""
task: text_classification
{TEXTS.replace("word", "{name: unigram, vocabulary_size: 40}")}
architecture: {{name: transformer, num_layers: 1, num_heads: 2, width: 8, dropout: 0.0}}
optimizer: {{name: sgd, learning_rate: 0.05}}
training: {{epochs: 2, batch_size: 9, checkpoint: {{every_steps: 3}}}}
""",
        1e-6,
    ),
    "language_model": (
        """
task: {name: language_modeling, stride: 4}
dataset: {name: text_file, path: texts.txt, tokenizer: character, max_length: 16, validation_split: 0.2}
architecture: {name: gpt, num_layers: 1, num_heads: 2, width: 16, dropout: 0.0}
optimizer: {name: adafactor, learning_rate: 1e-2}
training: {epochs: 2, batch_size: 15, checkpoint: {every_steps: 5}}
""",
        1e-5,
    ),
    "dcgan": (
        """
task: {name: gan, conditional: true}
dataset: digits
architecture: {name: dcgan, latent_dimension: 8, filters: 8}
optimizer: {name: sgd, learning_rate: 1e-2}
regularization: {ema: 0.9}
training: {epochs: 2, batch_size: 128, checkpoint: {every_steps: 3}}
""",
        1e-5,
    ),
    "critic": (
        """
task: {name: gan, objective: wasserstein_gp, critic_steps: 2}
dataset: digits
architecture: {name: dcgan, latent_dimension: 8, filters: 8}
training: {epochs: 1, batch_size: 64, checkpoint: {every_steps: 3}}
""",
        None,
    ),
    "diffusion": (
        """
task: {name: diffusion, sampling_steps: 4}
dataset: digits
architecture: {name: diffusion_unet, filters: 8, multipliers: [1, 2], num_blocks: 1, attention_size: 4}
optimizer: {name: sgd, learning_rate: 1e-2}
regularization: {ema: 0.9}
training: {epochs: 1, batch_size: 64, checkpoint: {every_steps: 6}}
""",
        1e-5,
    ),
}
"""Name -> recipe, and how far two workers may be from one device; None where each draws or normalizes for itself."""
KILLED = {
    "everything": 17,
    "normalized_parts": 21,
    "dropout": 20,
    "local_normalization": 16,
    "lstm": 9,
    "unigram": 7,
    "critic": 8,
    "dcgan": 13,
}
"""Case -> the step after which a worker is killed."""


@pytest.fixture(scope="module")
def team() -> Iterator[Team]:
    with Team() as running:
        yield running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the texts that some recipes read."""
    made = tmp_path_factory.mktemp("two_workers")
    draw = np.random.default_rng(0)
    for split in ("train", "test"):
        for mood, word in (("bad", "awful"), ("good", "lovely")):
            (made / "texts" / split / mood).mkdir(parents=True)
            for number in range(24):
                words = [word, *draw.choice(["the", "film", "was", "so", "and"], draw.integers(1, 9))]
                (made / "texts" / split / mood / f"{number}.txt").write_text(" ".join(words))
    (made / "texts.txt").write_text(" ".join(draw.choice(["to", "be", "or", "not", "that"], 400)))
    return made


def run(
    team: Team, folder: Path, name: str, *words: object, codes: Sequence[int] = (0, 0), **how: object
) -> str:
    """Trains a case in `folder / name`, expects the exit codes, and gives what the first one said."""
    ended = team.run(*words, "--out", folder / name, "--continue", workers=len(codes), **how)
    assert [each.code for each in ended] == list(codes), "\n".join(each.log[-3000:] for each in ended)
    return ended[0].log


def case(folder: Path, name: str) -> Path:
    text = CASES[name][0].replace("path: texts.txt", f"path: {folder / 'texts.txt'}")
    return written(folder, text.replace("path: texts,", f"path: {folder / 'texts'},"), name)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_every_kind_of_recipe_is_trained_as_by_one_device(name: str, team: Team, folder: Path) -> None:
    recipe, tolerance = case(folder, name), CASES[name][1]
    run(team, folder, f"{name}-two", "train", recipe, watch=Watch(str(folder / f"{name}-watch")))
    check_alike(folder / f"{name}-watch")
    if tolerance is not None:
        run(team, folder, f"{name}-one", "train", recipe, codes=[0])
        check_equal(folder / f"{name}-one", folder / f"{name}-two", tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("name", KILLED)
def test_a_killed_training_of_two_goes_on_as_if_it_had_not_been(name: str, team: Team, folder: Path) -> None:
    recipe, whole, cut = case(folder, name), f"{name}-two", f"{name}-cut"
    if not (folder / whole).is_dir():
        run(team, folder, whole, "train", recipe)
    worker = KILLED[name] % 2
    watch = Watch(str(folder / f"{name}-cut-watch"), kill=(worker, KILLED[name], signal.SIGKILL))
    ended = team.run("train", recipe, "--out", folder / cut, "--continue", watch=watch)
    assert ended[worker].code == -9, ended[worker].log
    assert ended[1 - worker].code != 0, "it may have noticed before it was killed too"
    run(team, folder, cut, "train", recipe, watch=watch)
    check_alike(folder / f"{name}-cut-watch")
    check_same(folder / cut, folder / whole)


# What `dlcli launch` does about kills, signals and failures


DROPPED = DIGITS.replace("normalization: none", "dropout: 0.2").replace("epochs: 2", "epochs: 3")


@pytest.fixture(scope="module")
def uninterrupted(team: Team, folder: Path) -> Path:
    """A run of DROPPED by two workers; its recipe stands beside it."""
    run(team, folder, "uninterrupted", "train", written(folder, DROPPED, "dropped"))
    return folder / "uninterrupted"


@pytest.mark.slow
@pytest.mark.parametrize("worker", [0, 1])
def test_who_is_killed_in_the_middle_of_an_epoch_starts_again_with_all_others(
    worker: int, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch(str(tmp_path / "watch"), kill=(worker, STEPS + 8, signal.SIGKILL))
    monkeypatch.setenv("TEAM", watch.variables()["TEAM"])
    code, said = launch(uninterrupted.with_name("dropped.yaml"), "--workers", 2, "--out", tmp_path / "run")
    assert code == 0, said
    assert f"worker {worker} was killed by SIGKILL" in said
    assert "from the checkpoint epoch-0001-step-0000000020 (restart 1 of 3)" in said
    check_alike(tmp_path / "watch")
    check_same(tmp_path / "run", uninterrupted)


@pytest.mark.slow
def test_nothing_of_a_test_is_needed_to_survive_a_kill(uninterrupted: Path, tmp_path: Path) -> None:
    """The command as users start it, and `kill -9` from outside while it trains."""
    command = [
        sys.executable,
        "-m",
        "dlcli",
        "launch",
        uninterrupted.with_name("dropped.yaml"),
        "--workers",
        "2",
    ]
    launcher = subprocess.Popen(
        [*map(str, command), "--out", str(tmp_path / "run"), "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=_with_imports(),
    )  # fmt: skip
    until(lambda: list(tmp_path.glob("run/checkpoints/epoch-*")))
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    out, said = launcher.communicate(timeout=300)
    assert launcher.returncode == 0, said
    assert "was killed by SIGKILL" in said
    assert json.loads(out)["run"] == str(tmp_path / "run")
    found, expected = (numbers_of(each)["arrays"] for each in (tmp_path / "run", uninterrupted))
    assert {name: value.tobytes() for name, value in found.items()} == {
        name: value.tobytes() for name, value in expected.items()
    }


def _with_imports() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def until(what: Callable[[], object], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.slow
def test_a_signal_saves_one_step_and_any_number_of_workers_goes_on_from_it(
    team: Team, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = written(tmp_path, DIGITS)
    watch = Watch(str(tmp_path / "watch"), delay=(-1, 0.2))
    monkeypatch.setenv("TEAM", watch.variables()["TEAM"])

    def send() -> None:
        until(lambda: list(tmp_path.glob("watch/state-0-0000-000005-*")))
        os.kill(os.getpid(), signal.SIGTERM)

    sender = threading.Thread(target=send, daemon=True)
    sender.start()
    code, said = launch(recipe, "--workers", 2, "--out", tmp_path / "run")
    sender.join()
    assert code == 143, said
    assert "--continue" in said.splitlines()[-1]
    check_alike(tmp_path / "watch")
    last = list(states_of(tmp_path / "watch"))[-1]
    newest = max(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    steps = int(last.split("-")[2]) * STEPS + int(last.split("-")[3])
    assert newest.endswith(f"-{steps:010d}")
    assert steps < 2 * STEPS

    shutil.copytree(tmp_path / "run", tmp_path / "three")
    shutil.copytree(tmp_path / "run", tmp_path / "one")
    watch = Watch(str(tmp_path / "watched"))
    monkeypatch.setenv("TEAM", watch.variables()["TEAM"])
    code, said = launch(recipe, "--workers", 2, "--out", tmp_path / "run", "--continue")
    assert code == 0, said
    run(team, folder, "signalled-two", "train", recipe)
    check_same(tmp_path / "run", folder / "signalled-two")
    run(team, folder, "signalled-one", "train", recipe, codes=[0])
    run(team, tmp_path, "one", "train", recipe, codes=[0])
    run(team, tmp_path, "three", "train", recipe, codes=[0, 0, 0], watch=Watch(str(tmp_path / "of_three")))
    check_alike(tmp_path / "of_three", workers=3)
    for name in ("run", "one", "three"):
        check_equal(folder / "signalled-one", tmp_path / name)


@pytest.mark.slow
def test_the_chiefs_clock_decides_when_all_save(team: Team, tmp_path: Path) -> None:
    """A clock of 60 ms, a first worker that is slow, so that the other one's clock would say something else."""
    recipe = written(tmp_path, DIGITS.replace("every_steps: 5", "every_minutes: 0.001"))
    watch = Watch(str(tmp_path / "watch"), delay=(0, 0.05))
    run(team, tmp_path, "run", "train", recipe, watch=watch)
    check_alike(tmp_path / "watch")
    inside = [place for place in states_of(tmp_path / "watch") if not place.endswith("-000000")]
    assert len(inside) > 4
    run(team, tmp_path, "other", "train", written(tmp_path, DIGITS, "other"))
    assert state_of(tmp_path / "run")["models"] == state_of(tmp_path / "other")["models"]


@pytest.mark.slow
def test_nan_ends_all_and_is_not_tried_again(tmp_path: Path) -> None:
    recipe = written(
        tmp_path,
        DIGITS.replace("adam, learning_rate: 2e-3", "sgd, learning_rate: 1000") + "regularization: {l2: 0.1}",
    )
    code, said = launch(recipe, "--workers", 2, "--out", tmp_path / "run")
    assert code == 4, said
    assert "[0] the loss became nan at step" in said
    assert "restart" not in said


@pytest.mark.slow
def test_a_worker_with_other_data_is_refused(team: Team, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "texts", tmp_path / "texts")
    next((tmp_path / "texts" / "train" / "bad").iterdir()).unlink()
    each = [["--set", f"dataset.path={root / 'texts'}"] for root in (folder, tmp_path)]
    ended = team.run("train", case(folder, "lstm"), "--out", tmp_path / "run", "--continue", each=each)
    assert ended[1].code == 2, ended[1].log
    assert "the workers read different data" in ended[1].log
    assert ended[0].code in (2, 4), ended[0].log


@pytest.mark.slow
def test_a_worker_with_another_run_folder_is_refused(team: Team, tmp_path: Path) -> None:
    """As on two machines without a shared file system, where one has the checkpoint."""
    recipe, watch = written(tmp_path, DIGITS), Watch(str(tmp_path / "watch"), kill=(0, 8, signal.SIGKILL))
    assert team.run("train", recipe, "--out", tmp_path / "run", "--continue", watch=watch)[0].code == -9
    each = [["--out", str(tmp_path / name)] for name in ("run", "elsewhere")]
    ended = team.run("train", recipe, "--continue", each=each)
    assert ended[1].code == 2, ended[1].log
    assert "from the beginning, and the first one from epoch-0000-step-0000000005" in ended[1].log
    assert ended[0].code == 4, ended[0].log


@pytest.mark.slow
def test_a_survivor_says_that_another_one_is_gone(tmp_path: Path) -> None:
    """Without a launcher, as under Slurm: it notices by itself after some seconds."""
    recipe, watch = written(tmp_path, DIGITS), Watch(str(tmp_path / "watch"), kill=(1, 8, signal.SIGKILL))
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    found = by_hand(recipe, tmp_path / "run", addresses, watch, ((), ()))
    assert found[1][0] == -9
    code, said = found[0]
    assert code == 4, said
    assert "Traceback" not in said
    assert "worker" in said.splitlines()[-1] or "go on" in said


def by_hand(
    recipe: Path, out: Path, addresses: Sequence[str], watch: Watch, before: Sequence[Sequence[str]]
) -> list[tuple[int, str]]:
    """Two workers without `dlcli launch`: exit code and stderr of each.

    Args:
        recipe: trained.
        out: the run folder.
        addresses: of the workers.
        watch: what is watched.
        before: words of a command that starts each of them.
    """
    program = [sys.executable, str(Path(__file__).with_name("team.py"))]
    running = [
        subprocess.Popen(
            [*words, *program, "train", str(recipe), "--out", str(out), "--continue"],
            env={**_with_imports(), **watch.variables(), "TF_CONFIG": tf_config(addresses, index)},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for index, words in enumerate(before)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=240)[1] for process in running]
        return [(process.returncode, text) for process, text in zip(running, said, strict=True)]
    finally:
        for process in running:
            process.kill()
            process.wait()


@contextlib.contextmanager
def namespaces() -> Iterator[list[tuple[str, str]]]:
    """Two network namespaces with a cable between them: two machines, as far as TCP can tell."""
    names = [f"dlcli-{os.getpid()}-{side}" for side in "ab"]
    cable = [f"dl{os.getpid() % 100_000}{side}" for side in "ab"]
    addresses = ["10.213.77.1", "10.213.77.2"]

    def ip(*words: str) -> None:
        done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"ip {' '.join(words)}: {done.stderr.strip()}")

    if shutil.which("ip") is None:
        pytest.skip("no ip command: network namespaces cannot be made")
    try:
        for name in names:
            ip("netns", "add", name)
        ip(
            "link",
            "add",
            cable[0],
            "netns",
            names[0],
            "type",
            "veth",
            "peer",
            "name",
            cable[1],
            "netns",
            names[1],
        )
        for name, end, address in zip(names, cable, addresses, strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", end)
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", end, "up")
        yield list(zip(names, addresses, strict=True))
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


@pytest.mark.slow
def test_two_network_namespaces_are_like_two_machines(uninterrupted: Path, tmp_path: Path) -> None:
    """Killed in one of them and started again in both, they end as two workers of one machine."""
    recipe = uninterrupted.with_name("dropped.yaml")
    watch = Watch(str(tmp_path / "watch"), kill=(1, STEPS + 8, signal.SIGKILL))
    with namespaces() as made:
        addresses = [f"{address}:{port}" for (_, address), port in zip(made, (2221, 2222), strict=True)]
        inside = [["ip", "netns", "exec", name] for name, _ in made]
        found = by_hand(recipe, tmp_path / "run", addresses, watch, inside)
        assert [code for code, _ in found] == [4, -9], found
        found = by_hand(recipe, tmp_path / "run", addresses, watch, inside)
        assert [code for code, _ in found] == [0, 0], found
    check_alike(tmp_path / "watch")
    check_same(tmp_path / "run", uninterrupted)


# Trainings that begin from another one


@pytest.fixture(scope="module")
def source(team: Team, folder: Path) -> Path:
    run(team, folder, "source", "train", written(folder, DIGITS, "source"), codes=[0])
    return folder / "source"


@pytest.mark.slow
def test_fine_tuning_and_frozen_features(team: Team, source: Path, tmp_path: Path) -> None:
    stages = "[{freeze: all, epochs: 1, learning_rate: 1e-2}, {freeze: none, epochs: 1, learning_rate: 1e-3}]"
    tuned = written(tmp_path, f"{DIGITS}finetune: {{source: {source}, stages: {stages}}}\n", "tuned")
    for name, codes in (("two", [0, 0]), ("one", [0])):
        watch = Watch(str(tmp_path / f"watch-{name}"))
        ended = team.run("finetune", tuned, "--out", tmp_path / name, workers=len(codes), watch=watch)
        assert [each.code for each in ended] == codes, ended
    check_alike(tmp_path / "watch-two")
    check_equal(tmp_path / "one", tmp_path / "two")

    frozen = f"""
task: image_classification
dataset: {{name: digits, validation_split: 0.1}}
architecture: {{name: frozen_features, source: {source}, dense: [8]}}
training: {{epochs: 2, batch_size: 101}}
"""
    recipe = written(tmp_path, frozen, "frozen")
    for name, codes in (("frozen-two", [0, 0]), ("frozen-one", [0])):
        run(team, tmp_path, name, "train", recipe, codes=codes, watch=Watch(str(tmp_path / f"watch-{name}")))
    check_alike(tmp_path / "watch-frozen-two")
    check_equal(tmp_path / "frozen-one", tmp_path / "frozen-two")
