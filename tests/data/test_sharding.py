"""Sharded streams: the parts of all processes are, one after another, the batch of one device, bit by bit."""

from __future__ import annotations

from itertools import islice, pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from dlcli.data import IMAGE_AUGMENTATIONS
from dlcli.data.augmentation import Position, build_augment, rows_before
from dlcli.data.draws import adversarial_draws, diffusion_draws, translation_draws, variational_draws
from dlcli.data.examples import ArrayExamples
from dlcli.data.image_folder import image_folder
from dlcli.data.image_pairs import PairExamples
from dlcli.data.sharding import Shard
from dlcli.data.stream import evaluation_stream, indices_of_step, training_stream
from dlcli.data.text.augmentation import build_text_augment
from dlcli.data.text.masking import build_marking, build_masking
from dlcli.data.text.sequences import TokenPairs, TokenSequences, TokenWindows
from dlcli.data.text.texts import TextExamples, Texts
from dlcli.data.text.tokenizer import Tokenizer
from dlcli.data.text.tokenizers import word
from dlcli.data.text.vocabulary import TokenTexts
from dlcli.data.unpaired_images import UnpairedExamples
from dlcli.recipe.schema import Spec
from dlcli.tasks.token_classification import TaggedTokens

# Batches of 5 and at last 2: parts of 2, 2, 1 and of 1, 1, 0, the first two in one process.
WORKERS = [Shard(3, 0, 2), Shard(3, 2)]
STEPS = 4
random = np.random.default_rng(0)


def take(stream, count=STEPS):
    return list(islice(stream.as_numpy_iterator(), count))


def rows_of(batch, trim=False):
    """A list of rows, each a list of arrays; with `trim` without the padding behind a text."""
    leaves = tf.nest.flatten(batch)
    if trim:
        leaves = [[np.trim_zeros(row, "b") for row in leaf] if leaf.ndim == 2 else leaf for leaf in leaves]
    return list(zip(*leaves, strict=True))


def assert_same(stream, workers=WORKERS, trim=False):
    """`stream(shard)` gives for all workers together what it gives without one."""
    whole = take(stream(None))
    cut = [take(stream(shard)) for shard in workers]
    for step, batch in enumerate(whole):
        parts = [part for steps in cut for part in steps[step]]
        expected = rows_of(batch, trim)
        assert [len(rows_of(part)) for part in parts] == [
            len(each) for each in np.array_split(np.arange(len(expected)), workers[0].replicas)
        ]
        got = [row for part in parts for row in rows_of(part, trim)]
        for wanted, row in zip(expected, got, strict=True):
            for one, other in zip(wanted, row, strict=True):
                np.testing.assert_array_equal(one, other)


def images(count=7, channels=3):
    # Not whole numbers: what differs in the last bit would be lost in rounding.
    pixels = random.uniform(0, 255, (count, 6, 5, channels)).astype("float32")
    return ArrayExamples(pixels, np.arange(count, dtype="int32") % 3)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 12])
@pytest.mark.parametrize("replicas", [1, 3, 7])
def test_parts_are_as_even_as_can_be_and_in_order(size, replicas):
    bounds = Shard(replicas, 0, replicas).bounds(tf.constant(size))
    expected = np.array_split(np.arange(size), replicas)
    assert [list(range(start, end)) for start, end in pairwise(bounds)] == [list(part) for part in expected]
    for number in range(replicas):
        shard = Shard(replicas, number)
        if len(expected[number]):
            assert shard.rows(tf.constant(size)).numpy().tolist() == list(expected[number])
        assert len(shard.rows(tf.constant(size))) == max(1, len(expected[number]))


@pytest.mark.parametrize("wrong", [{"replicas": 0}, {"replicas": 2, "first": 2}, {"replicas": 2, "count": 3}])
def test_a_shard_lies_within_the_replicas(wrong):
    with pytest.raises(ValueError, match=r"Received: replicas=\d, first=\d, count=\d"):
        Shard(**wrong)


CHAINS = {name: [Spec(name=name)] for name in IMAGE_AUGMENTATIONS} | {
    "strong": [Spec(name="rand_augment", magnitude=27.0), Spec(name="random_color_jitter", hue_factor=1.0)],
    "alternating": [Spec(name="random_flip", alternate=True)],
    "boxes": [Spec(name="random_erasing", factor=0.5, size=3, fill_value=7.0)],
    "several": [
        *(Spec(name=name) for name in ("cut_mix", "random_erasing", "random_rotation", "mix_up")),
        Spec(name="random_color_jitter"),
    ],
}


GENERATIVE = {
    "gan": adversarial_draws(latent_dimension=3, turns=1, labels=True, mix=True, augmentation=4),
    **{
        pixels: variational_draws(latent_dimension=3, pixels=pixels)
        for pixels in ("binary", "dequantized", "levels")
    },
    "diffusion": diffusion_draws(classes=3, label_dropout=0.4),
}


@pytest.mark.parametrize("name", [*CHAINS, *GENERATIVE])
@pytest.mark.parametrize("size", [1, 403])  # a processor computes 16 at a time, and the rest one by one
def test_what_is_drawn_is_that_of_one_device(name, size):
    augment, before = GENERATIVE.get(name), rows_before(CHAINS.get(name, []))
    augment = augment or build_augment(CHAINS[name])
    pixels = random.uniform(0, 255, (size, 6, 5, 3)).astype("float32")
    targets = np.eye(size, dtype="float32") if name in CHAINS else np.arange(size, dtype="int32")
    step = tf.constant(4, tf.int64)
    whole = Position.of(3, step, step, tf.range(size) * 7)
    expected = augment(tf.constant(pixels), tf.constant(targets), whole)
    for replica in range(4):
        shard = Shard(4, replica)
        start, end = shard.bounds(size)
        rows = shard.rows(size, before)
        made = augment(tf.gather(pixels, rows), tf.gather(targets, rows), whole.at(rows, before))
        (part,) = shard.parts(made, size, before)
        for wanted, got in zip(tf.nest.flatten(expected), tf.nest.flatten(part), strict=True):
            np.testing.assert_array_equal(wanted[start:end], got)


def folder(tmp_path, class_folders):
    return {"examples": image_folder(path=class_folders(per_class=3, size=5, splits=("train",))).train}


def table(tmp_path, class_folders):
    columns = {"a": np.arange(7, dtype="float32")[:, None], "b": np.array(list("abcdefg"))[:, None]}
    weights = tf.constant([1.0, 0.25, 3.0])
    examples = ArrayExamples(columns, np.arange(7, dtype="int32") % 3)
    return {
        "examples": examples,
        "one_hot_classes": 3,
        "weigh": lambda targets: tf.linalg.matvec(targets, weights),
    }


def pairs_of_images(tmp_path, class_folders):
    augment = build_augment([Spec(name="random_crop", padding=2)], alike=True)
    draws = translation_draws(buffer=4)
    return {
        "examples": PairExamples(images(), images()),
        "augment": lambda inputs, targets, place: draws(*augment(inputs, targets, place), place),
    }


def unpaired(tmp_path, class_folders):
    return {
        "examples": UnpairedExamples(images(3), images(7)),
        "augment": build_augment([Spec(name="random_flip")]),
    }


def gan(tmp_path, class_folders):
    draws = adversarial_draws(latent_dimension=3, turns=2, labels=True, mix=True, augmentation=4)
    return {"examples": images(23), "batch_size": 10, "augment": draws, "group": 2, "whole_batches": True}


IMAGES_AND_TABLES = {
    "folder": folder,
    "table": table,
    "pairs_of_images": pairs_of_images,
    "unpaired": unpaired,
    "gan": gan,
}


@pytest.mark.parametrize("name", IMAGES_AND_TABLES)
def test_sources_and_draws_are_those_of_one_device(name, tmp_path, class_folders):
    arguments = {"batch_size": 5, "seed": 3} | IMAGES_AND_TABLES[name](tmp_path, class_folders)
    examples = arguments.pop("examples")
    assert_same(lambda shard: training_stream(examples, shard=shard, **arguments))


def sequences(lengths=(3, 0, 9, 1, 4, 2, 7), **ends):
    tokens = [random.integers(5, 40, length).astype("int32") for length in lengths]
    return TokenSequences(TokenTexts.of(tokens), 8, np.arange(len(lengths), dtype="int32"), **ends)


def augmented_texts():
    texts = ["one two three four five", "six", "seven eight nine", "one ten", "a b c d e f g", "h i", "j k l"]
    tokenizer = Tokenizer(word(texts).to_str())
    examples = TextExamples({"text": Texts.of(texts)}, np.zeros(len(texts), "int32"))
    task = SimpleNamespace(
        name="text_classification", ends=((), ()), info=SimpleNamespace(tokenizer=tokenizer, max_length=12)
    )
    specs = [Spec(name="random_swap", rate=0.5), Spec(name="random_deletion", rate=0.3)]
    return build_text_augment(specs, examples, task)


TEXTS = {
    "windows": lambda: (TokenWindows(np.arange(5, 40), 6, 5), None),
    "pairs": lambda: (
        TokenPairs({"source": sequences(), "target": sequences(suffix=(3,))}, sequences()),
        None,
    ),
    "tags": lambda: (TaggedTokens(sequences(), sequences()), None),
    "augmented": lambda: (sequences(), augmented_texts()),
    "masked": lambda: (sequences(prefix=(2,)), build_masking(0.5, 40, begins_words=np.arange(40) % 2 == 0)),
    "marked": lambda: (sequences(), build_marking(0.5)),
}


@pytest.mark.parametrize("name", TEXTS)
def test_texts_are_those_of_one_device_but_for_padding(name):
    examples, augment = TEXTS[name]()
    arguments = {"batch_size": 5, "seed": 3, "augment": augment}
    assert_same(lambda shard: training_stream(examples, shard=shard, **arguments), trim=True)
    first, second = take(training_stream(examples, shard=WORKERS[0], **arguments), 1)[0]
    for one, other in zip(tf.nest.flatten(first), tf.nest.flatten(second), strict=True):
        assert one.shape[1:] == other.shape[1:]  # within a process all are padded alike


@pytest.mark.parametrize("workers", [WORKERS, [Shard(3, 0, 3)]])
def test_mixed_images_in_several_processes_and_in_one(workers):
    specs, examples = [Spec(name="cut_mix"), Spec(name="random_crop"), Spec(name="mix_up")], images()

    def stream(shard):
        return training_stream(
            examples,
            batch_size=5,
            seed=3,
            augment=build_augment(specs),
            one_hot_classes=3,
            shard=shard,
            before=rows_before(specs),
        )

    assert_same(stream, workers)


def test_a_sharded_stream_goes_on_from_a_step():
    arguments = {"batch_size": 5, "seed": 3, "shard": WORKERS[1]}
    later = take(training_stream(images(), start_step=2, **arguments), 1)[0]
    np.testing.assert_array_equal(later[0][1], take(training_stream(images(), **arguments))[2][0][1])


def test_evaluation_is_that_of_one_device():
    examples = sequences()
    augment = build_masking(0.5, 40, dynamic=False)
    assert_same(lambda shard: evaluation_stream(examples, 5, augment=augment, shard=shard), trim=True)


class Read:
    """Examples that note which of them are read, call by call."""

    def __init__(self, examples):
        self.examples, self.targets, self.calls = examples, examples.targets, []

    def __len__(self):
        return len(self.examples)

    def read(self, indices):
        noted = tf.numpy_function(self._note, [indices], tf.int32)
        return self.examples.read(tf.ensure_shape(noted, [None]))

    def _note(self, indices):
        self.calls.append(indices.tolist())
        return indices


@pytest.mark.parametrize(("names", "before"), [(("random_erasing",), 0), (("mix_up", "cut_mix"), 2)])
def test_a_worker_reads_its_own_rows_alone(names, before):
    specs = [Spec(name=name) for name in names]
    assert rows_before(specs) == before
    examples = Read(images(40))
    arguments = {"batch_size": 20, "seed": 3, "one_hot_classes": 3, "augment": build_augment(specs)}
    take(training_stream(examples, shard=Shard(4, 2), before=before, **arguments))
    assert {len(call) for call in examples.calls} == {5 + before}
    for step in range(STEPS):
        rows = indices_of_step(examples, 20, 3, step)[10 - before : 15]
        assert rows.tolist() in examples.calls


@pytest.mark.parametrize("swapped", [False, True])
def test_a_worker_reads_its_own_of_both_sets(swapped):
    sides = Read(images(40)), Read(images(12))
    examples = UnpairedExamples(*(reversed(sides) if swapped else sides))
    take(training_stream(examples, batch_size=20, seed=3, shard=Shard(4, 1)))
    assert {len(call) for side in sides for call in side.calls} == {5}


def test_a_gan_reads_its_own_groups():
    arguments = gan(None, None)
    examples = Read(arguments.pop("examples"))
    take(training_stream(examples, seed=3, shard=WORKERS[0], **arguments))
    assert {len(call) for call in examples.calls} == {8}  # 4 of 5 rows, of 2 images each


def test_what_a_process_was_not_told_is_no_silent_mistake():
    with pytest.raises(ValueError, match=r"Expected 2 examples before those to keep\. Received: 1"):
        training_stream(
            images(),
            batch_size=5,
            seed=3,
            augment=build_augment(CHAINS["several"]),
            one_hot_classes=3,
            shard=WORKERS[0],
            before=1,
        )
    arguments = gan(None, None) | {"group": 1, "seed": 3}
    with pytest.raises(tf.errors.InvalidArgumentError, match="Lines of a batch that is to be cut"):
        take(training_stream(shard=Shard(2, 0, 2), **arguments), 1)
