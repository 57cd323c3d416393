"""All files of data sets that dlcli fetches from the network: where from, how large, and their checksums.

They go to Keras's folder of data sets, where a file that is there already is used as it is. Everything is fetched by
https, which no redirect can leave, and put in place only when its checksum is right.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO
from urllib import request
from urllib.error import URLError
from urllib.parse import urlsplit

from dlcli.console import note
from dlcli.errors import DataError
from dlcli.files import atomic_path
from dlcli.network import is_offline

_GOOGLE = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"
_TORONTO = "https://www.cs.toronto.edu/~kriz/"
_PIECE = 1 << 20
_SECONDS = 60  # without a byte


@dataclass(frozen=True)
class Download:
    """One file."""

    url: str
    megabytes: float
    checksum: str
    """`sha256:...`; `md5:...` where nobody has published another."""

    @property
    def name(self) -> str:
        """The file's name, here as there."""
        return self.url.rsplit("/", 1)[1]


DATA_SETS: dict[str, tuple[Download, ...]] = {
    "mnist": (
        Download(
            f"{_GOOGLE}mnist.npz",
            11.49,
            "sha256:731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1",
        ),
    ),
    "fashion_mnist": (
        Download(
            f"{_GOOGLE}train-images-idx3-ubyte.gz",
            26.4,
            "sha256:3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        ),
        Download(
            f"{_GOOGLE}train-labels-idx1-ubyte.gz",
            0.1,
            "sha256:a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        ),
        Download(
            f"{_GOOGLE}t10k-images-idx3-ubyte.gz",
            4.4,
            "sha256:346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        ),
        Download(
            f"{_GOOGLE}t10k-labels-idx1-ubyte.gz",
            0.1,
            "sha256:67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
    ),
    "cifar10": (
        Download(
            f"{_TORONTO}cifar-10-python.tar.gz",
            170.5,
            "sha256:6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        ),
    ),
    "cifar100": (
        Download(
            f"{_TORONTO}cifar-100-python.tar.gz",
            169.0,
            "sha256:85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
        ),
    ),
    "imdb": (
        Download(
            f"{_GOOGLE}imdb.npz",
            17.5,
            "sha256:69664113be75683a8fe16e3ed0ab59fda8886cb3cd7ada244f7d9544e4676b9f",
        ),
        # Keras publishes no other checksum of the lists of words.
        Download(f"{_GOOGLE}imdb_word_index.json", 1.7, "md5:bfafd718b763782e994055a2d397834f"),
    ),
    "reuters": (
        Download(
            f"{_GOOGLE}reuters.npz",
            2.2,
            "sha256:d6586e694ee56d7a4e65172e12b3e987c03096cb01eab99753921ef915959916",
        ),
        Download(f"{_GOOGLE}reuters_word_index.json", 0.6, "md5:4d44cc38712099c9e383dc6e5f11a921"),
    ),
}


def fetch_missing(name: str, folder: Path) -> None:
    """Downloads those files of a data set that are not in `folder`, saying so.

    Args:
        name: of the data set, a key of DATA_SETS.
        folder: where they belong.

    Raises:
        DataError: the network is forbidden, fails, or brings something else; says which file to put where.
    """
    missing = missing_files(name, folder)
    if not missing:
        return
    if is_offline():
        raise DataError(
            f"{name} is not on this machine, and the network is forbidden\n{by_hand(missing, folder)}"
        )
    size = sum(file.megabytes for file in missing)
    source = missing[0].url.rsplit("/", 1)[0]
    note(f"downloading {name}, {size:.0f} MB, from {source}/ to {folder}")
    for file in missing:
        try:
            fetch(file, folder)
        except (OSError, HTTPException, ValueError) as error:
            raise DataError(
                f"{name} could not be downloaded from {file.url}: {error}\n{by_hand(missing, folder)}"
            ) from error


def missing_files(name: str, folder: Path) -> list[Download]:
    """What of a data set is not in `folder`."""
    return [file for file in DATA_SETS[name] if not (folder / file.name).is_file()]


def by_hand(files: Sequence[Download], folder: Path) -> str:
    """What to do on a machine without network."""
    what = ", ".join(f"{file.url} ({file.megabytes:g} MB)" for file in files)
    it, is_ = ("it", "it is") if len(files) == 1 else ("them", "they are")
    return f"On a machine with network, fetch {what} and put {it} in {folder}, or set dataset.path to where {is_}"


def fetch(file: Download, folder: Path) -> None:
    """Downloads one file; it appears in `folder` when all of it is there and right.

    Raises:
        OSError: the network failed.
        ValueError: it is not the file that was expected.
    """
    algorithm, _, expected = file.checksum.partition(":")
    digest, size = hashlib.new(algorithm, usedforsecurity=False), 0
    with (
        https_opener().open(file.url, timeout=_SECONDS) as answer,
        atomic_path(folder / file.name) as temporary,
        temporary.open("wb") as target,
    ):
        while piece := answer.read(_PIECE):
            size += len(piece)
            if size > 2e6 * file.megabytes:
                raise ValueError(f"what comes is larger than the {file.megabytes:g} MB that {file.name} has")
            digest.update(piece)
            target.write(piece)
        if digest.hexdigest() != expected:
            raise ValueError(
                f"{size:,} bytes came with {algorithm} {digest.hexdigest()}, and {file.name} has {expected}"
            )


class _StaysHttps(request.HTTPRedirectHandler):
    def redirect_request(
        self, req: request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> request.Request | None:
        """As urllib's, after a look at where it leads.

        Raises:
            URLError: away from https.
        """
        if urlsplit(newurl).scheme != "https":
            raise URLError(f"{req.full_url} leads to {newurl}, which is not https; refused")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def https_opener() -> request.OpenerDirector:
    """Opens https addresses and nothing else: no http, no ftp, no files, also not by a redirect."""
    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler, request.UnknownHandler, request.HTTPDefaultErrorHandler, request.HTTPErrorProcessor,
        _StaysHttps, request.HTTPSHandler,
    ):  # fmt: skip
        opener.add_handler(handler())
    return opener


@contextmanager
def https_only() -> Iterator[None]:
    """What goes through urllib within this block, as Keras's own downloads do, goes by https."""
    kept = request._opener  # type: ignore[attr-defined]  # urllib tells nobody which one is installed
    request.install_opener(https_opener())
    try:
        yield
    finally:
        request._opener = kept  # type: ignore[attr-defined]
