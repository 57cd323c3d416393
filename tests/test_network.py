"""The network: no command opens a connection, and offline nothing can."""

import contextlib
import inspect
import io
import os
import socket
import subprocess
import sys
import urllib.request
from importlib import import_module
from pathlib import Path
from unittest import mock
from urllib.error import URLError
from urllib.parse import urlsplit

import numpy as np
import pytest
import typer
from PIL import Image

from dlcli import console, downloads, network
from dlcli.cli.main import app, main
from dlcli.errors import DlcliError

SEEN: list[str] = []


def _listen(
    event,
    arguments,
    connections=network._CONNECTIONS,
    lookups=network._LOOKUPS,
    local=socket.AF_UNIX,
    seen=SEEN,
):
    """Connections, packets and lookups of names in this process; local sockets are none.

    It lives as long as the process, and longer than this module's names, so that it has its own.
    """
    if event in connections and arguments[0].family != local:
        seen.append(f"{event} {arguments[1:]}")
    elif event in lookups:
        seen.append(f"{event} {arguments}")


sys.addaudithook(_listen)


@pytest.fixture
def offline(monkeypatch):
    """As DLCLI_OFFLINE=1 does; afterwards the network is allowed again."""
    for name in network._OF_OTHERS:
        monkeypatch.setenv(name, "")
    monkeypatch.setenv(network.VARIABLE, "1")
    network.obey()


def dlcli(*words):
    """`dlcli WORDS` in this process: exit code, stdout, stderr."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["dlcli", *map(str, words)]),
        mock.patch.object(console.console, "quiet", False),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    return ended.value.code or 0, out.getvalue(), err.getvalue()


# What is opened when nobody forbids it


SMALL = (
    "--set", "architecture={name: mlp, hidden: [8]}", "--set", "training.epochs=1", "--set", "training.batch_size=512",
    "--set", "dataset.augmentation=[]", "--set", "schedule=constant",
)  # fmt: skip


@pytest.mark.usefixtures("no_pictures")
def test_no_command_opens_a_connection(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.zeros((8, 8), "uint8")).save("digit.png")
    SEEN.clear()
    for words in (
        ("--version",), ("recipes", "list"), ("recipes", "show", "digits_cnn"), ("validate", "digits_cnn"), ("schema",),
        ("doctor",), ("plan", "digits_cnn", *SMALL), ("data", "preview", "digits_cnn", "--count", "2"),
        ("data", "samples", "digits_cnn", "--out", "samples", "--count", "2"), ("data", "check", "digits_cnn"),
        ("train", "digits_cnn", *SMALL, "--out", "run"), ("train", "--resume", "run"), ("evaluate", "run"),
        ("predict", "run", "digit.png"), ("features", "run", "digit.png", "--out", "features.npz"),
        ("explain", "run", "digit.png", "--method", "saliency", "--out", "why"),
    ):  # fmt: skip
        code, _, err = dlcli(*words)
        assert code == 0, (words, err)
        assert not SEEN, words
    # What listens does hear.
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", 9), timeout=1)
    assert any("127.0.0.1" in each for each in SEEN)


@pytest.mark.slow
@pytest.mark.usefixtures("no_pictures", "offline")
def test_export_and_its_processes_need_no_network(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert dlcli("train", "digits_cnn", *SMALL, "--out", "run")[0] == 0
    SEEN.clear()
    code, _, err = dlcli("export", "run", "--format", "saved_model", "--out", "exported")
    assert code == 0, err
    assert not SEEN


def test_only_what_is_downloaded_is_asked_for_and_it_is_announced(tmp_path, monkeypatch, capfd):
    def refuse(*_, **__):
        raise ConnectionRefusedError("refused by the test")

    monkeypatch.setattr(socket, "create_connection", refuse)
    code, out, err = dlcli("plan", "mnist_lenet5", "--set", "training.epochs=1")
    assert (code, out) == (2, "")
    assert "downloading mnist, 11 MB, from https://storage.googleapis.com/" in err
    assert "refused by the test" in err and "mnist.npz (11.49 MB) and put it in" in err


# Offline


@pytest.mark.usefixtures("offline")
def test_offline_every_way_out_is_refused():
    with (
        socket.socket() as plain,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as packets,
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as six,
    ):
        for way in (
            lambda: plain.connect(("127.0.0.1", 9)),
            lambda: plain.bind(("0.0.0.0", 0)),
            lambda: six.connect(("::1", 9)),
            lambda: packets.sendto(b"x", ("127.0.0.1", 9)),
            lambda: socket.create_connection(("203.0.113.1", 443), timeout=1),
            lambda: socket.getaddrinfo("example.org", 443),
            lambda: socket.gethostbyname("example.org"),
        ):
            with pytest.raises(network.OfflineError, match="--offline or DLCLI_OFFLINE=1"):
                way()
    assert network.OfflineError("x").exit_code == 2
    with pytest.raises(URLError, match=r"no connection to example\.org"):
        urllib.request.urlopen("https://example.org")


@pytest.mark.usefixtures("offline")
def test_offline_sockets_within_the_machine_work():
    left, right = socket.socketpair()
    with left, right:
        left.sendall(b"x")
        assert right.recv(1) == b"x"


def test_online_again_nothing_is_refused(monkeypatch):
    monkeypatch.setenv(network.VARIABLE, "0")
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1", True),
        ("true", True),
        ("YES", True),
        ("on", True),
        ("", False),
        ("0", False),
        ("False", False),
        ("no", False),
    ],
)
def test_values_of_the_variable(value, expected, monkeypatch):
    monkeypatch.setenv(network.VARIABLE, value)
    assert network.is_offline() is expected


@pytest.mark.usefixtures("offline")
def test_processes_that_dlcli_starts_are_offline_too():
    code = (
        "import socket\nfrom dlcli.network import OfflineError, obey\nobey()\n"
        "try: socket.getaddrinfo('example.org', 443)\n"
        "except OfflineError: print('refused')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("refused\n", "")
    for module in ("dlcli.backend", "dlcli.cli.main"):
        assert "    obey()" in inspect.getsource(import_module(module)), "both ways into dlcli begin so"


@pytest.mark.parametrize(
    "words",
    [
        ("--offline", "validate", "digits_cnn"),
        ("validate", "digits_cnn", "--offline"),
        ("validate", "--offline", "digits_cnn"),
    ],
)
def test_the_option_stands_before_and_behind_the_command(words, monkeypatch):
    for name in network._OF_OTHERS:
        monkeypatch.setenv(name, "")
    monkeypatch.setenv(network.VARIABLE, "")
    assert dlcli(*words)[0] == 0
    assert os.environ[network.VARIABLE] == "1"
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def commands(command, words=()):
    yield words, command
    for name, child in getattr(command, "commands", {}).items():
        yield from commands(child, (*words, name))


def test_every_command_that_may_download_takes_it():
    lacking = [
        " ".join(words)
        for words, command in commands(typer.main.get_command(app))
        if not hasattr(command, "commands") and not any("--offline" in each.opts for each in command.params)
    ]
    assert all(each.startswith(("recipes ", "manifest ")) for each in lacking)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("command", ["plan", "train"])
def test_what_is_missing_is_named_before_any_work_with_its_place(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weights = "The ImageNet weights of MobileNetV2: download https://w/m.h5 and put it in ~/.keras/models"
    monkeypatch.setattr(
        "dlcli.architectures.application.load_application", mock.Mock(side_effect=DlcliError(weights))
    )
    settings = (
        "--set",
        "architecture={name: application, model: mobilenet_v2}",
        "--set",
        "dataset.normalization=rescale",
    )
    code, out, err = dlcli(command, "cifar10_cnn", *settings)
    assert (code, out) == (2, "")
    assert (
        "the network is forbidden (--offline or DLCLI_OFFLINE=1), and this recipe needs what is not here"
        in err
    )
    assert "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz (170.5 MB)" in err
    assert str(Path(os.environ["KERAS_HOME"]) / "datasets") in err
    assert weights in err
    assert "downloading" not in err and not list(tmp_path.iterdir())


@pytest.mark.usefixtures("offline")
def test_the_network_that_scores_samples_is_missed_before_training_not_after_it(tmp_path, monkeypatch):
    from keras.src.applications import inception_v3

    monkeypatch.chdir(tmp_path)
    code, _, err = dlcli("plan", "digits_dcgan", "--set", "metrics={features: imagenet}")
    assert code == 2
    assert inception_v3.WEIGHTS_PATH_NO_TOP in err, "Keras's own address"
    assert str(Path(os.environ["KERAS_HOME"]) / "models") in err


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    ("name", "file"), [("imdb", "imdb_word_index.json"), ("fashion_mnist", "t10k-labels-idx1-ubyte.gz")]
)
def test_every_missing_file_is_listed(name, file, tmp_path):
    with pytest.raises(DlcliError, match="not on this machine") as caught:
        downloads.fetch_missing(name, tmp_path)
    assert file in str(caught.value)
    for each in downloads.DATA_SETS[name][:-1]:
        (tmp_path / each.name).touch()
    with pytest.raises(DlcliError, match="not on this machine") as caught:
        downloads.fetch_missing(name, tmp_path)
    assert str(caught.value).count("https://") == 1


@pytest.mark.parametrize(
    "preset", ["gs://bucket/preset", "s3://bucket/preset", "http://host/preset", "modelscope://a/b"]
)
def test_presets_come_from_where_connections_can_be_seen(preset):
    from dlcli.pretrained.hub import load_preset

    with pytest.raises(DlcliError, match=r"is not read; allowed: kaggle://, hf://"):
        load_preset(preset, f"hub:{preset}", "auto")


# Downloads


@pytest.mark.parametrize("name", downloads.DATA_SETS)
def test_every_file_has_a_checksum_and_it_is_the_one_that_keras_knows(name):
    source = inspect.getsource(import_module(f"keras.src.datasets.{name}"))
    names = [file.name for file in downloads.DATA_SETS[name]]
    assert len(set(names)) == len(names)
    for file in downloads.DATA_SETS[name]:
        assert urlsplit(file.url).scheme == "https"
        algorithm, _, digest = file.checksum.partition(":")
        assert len(digest) == {"sha256": 64, "md5": 32}[algorithm]
        # Keras checks nothing of Fashion-MNIST's.
        assert name == "fashion_mnist" or digest in source
        assert name == "fashion_mnist" or file.name in source
        if algorithm == "md5":
            assert file.name.endswith("_word_index.json"), "SECURITY.md names these two"


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:9/x", "file:///etc/passwd", "ftp://127.0.0.1/x", "data:text/plain,x"]
)
def test_nothing_but_https_is_opened_also_for_keras(address):
    with pytest.raises(URLError, match="unknown url type"):
        downloads.https_opener().open(address)
    before = urllib.request._opener
    with downloads.https_only(), pytest.raises(URLError, match="unknown url type"):
        urllib.request.urlopen(address)
    assert urllib.request._opener is before


@pytest.mark.parametrize("leads_to", ["http://example.org/x", "ftp://example.org/x", "file:///etc/passwd"])
def test_no_redirect_leaves_https(leads_to):
    handler = downloads._StaysHttps()
    request = urllib.request.Request("https://example.org/x")
    with pytest.raises(URLError, match="which is not https; refused"):
        handler.redirect_request(request, io.BytesIO(), 302, "Found", {}, leads_to)
    assert (
        handler.redirect_request(request, io.BytesIO(), 302, "Found", {}, "https://example.com/x") is not None
    )
