"""Image files of one split that stand in the train split too: a score on them says little."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from dlcli.data.image_listing import SPLITS, Listing

_SHOWN = 3
_THREADS = 4


def notes_on_copies(listing: Listing) -> list[str]:
    """A note for each split with files that are copies, byte for byte, of train files.

    Only files that are as large as one of the train split are read. `dlcli data check` also finds equal pictures in
    different files.
    """
    notes = []
    is_train = listing.splits == 0
    for split in range(1, len(SPLITS)):
        chosen = listing.splits == split
        if not chosen.any():
            continue
        candidates = np.flatnonzero(chosen & np.isin(listing.sizes, listing.sizes[is_train]))
        train = np.flatnonzero(is_train & np.isin(listing.sizes, listing.sizes[candidates]))
        originals = dict(zip(_digests(listing, train), train, strict=True))
        copies = [
            (copy, originals[digest])
            for copy, digest in zip(candidates, _digests(listing, candidates), strict=True)
            if digest in originals
        ]
        if not copies:
            continue
        pairs = [f"{listing.paths[copy]} = {listing.paths[original]}" for copy, original in copies[:_SHOWN]]
        notes.append(
            f"warning: {len(copies):,} of {chosen.sum():,} {SPLITS[split]} images are copies of train images "
            f"({', '.join(pairs)}): a score on them says little; `dlcli data check` lists all"
        )
    return notes


def _digests(listing: Listing, indices: np.ndarray) -> list[bytes]:
    """sha256 of each file; of one that cannot be read its own name, which no other has."""

    def digest(index: int) -> bytes:
        try:
            with Path(listing.path(index)).open("rb") as file:
                return hashlib.file_digest(file, "sha256").digest()
        except OSError:
            return listing.path(index).encode("utf-8", "surrogateescape")

    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(digest, indices.tolist()))
