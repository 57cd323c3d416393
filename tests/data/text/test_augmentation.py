"""EDA on words: what changes, how much, and that a batch is a function of seed, epoch and example."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from dlcli.data.augmentation import Position
from dlcli.data.text.augmentation import (
    build_text_augment,
    random_deletion,
    random_insertion,
    random_swap,
    synonym_replacement,
)
from dlcli.data.text.sequences import TokenSequences, padded
from dlcli.data.text.texts import TextExamples, Texts
from dlcli.data.text.tokenizer import END, START, UNKNOWN, Tokenizer
from dlcli.data.text.tokenizers import character, word
from dlcli.data.text.vocabulary import TokenTexts
from dlcli.data.text.words import split_words
from dlcli.errors import DlcliError
from dlcli.recipe.load import load_recipe
from dlcli.recipe.schema import Spec
from dlcli.training.train import train

TEXT = "A wonderful film, moving and (sort of) funny! 'Don't' miss it."
WORDS = [piece for piece in split_words(TEXT) if piece[0].isalnum()]


def generator(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture
def synonyms(tmp_path):
    path = tmp_path / "synonyms.txt"
    path.write_text("film, movie, motion picture\nfunny,amusing\n便宜,实惠\n", encoding="utf-8")
    return path


def words_of(pieces):
    return [piece for piece in pieces if piece[:1].isalnum()]


@pytest.mark.parametrize(
    "text", [TEXT, "", "  \n", "房间很干净\uff0c服务 very good。", "👍🏽 né e\u0301!", "a", "?!"]
)
def test_pieces_joined_are_the_text(text):
    assert "".join(split_words(text)) == text


def test_a_word_is_what_the_tokenizer_takes_for_one():
    assert words_of(split_words("It's 房间, 20 km_h")) == ["It's", "房", "间", "20", "km_h"]


@pytest.mark.parametrize("change", [random_deletion, random_swap, random_insertion, synonym_replacement])
def test_rate_0_changes_nothing_and_nothing_comes_of_nothing(change, synonyms):
    more = {"synonyms": synonyms} if change in (random_insertion, synonym_replacement) else {}
    for seed in range(50):
        assert change(split_words(TEXT), generator(seed), rate=0.0, **more) == split_words(TEXT)
    for text in ("", " ", "...", "?! "):
        assert change(split_words(text), generator(), rate=1.0, **more) == split_words(text)


def test_deletion_leaves_out_the_asked_share_in_order_and_never_everything():
    kept = [words_of(random_deletion(split_words(TEXT), generator(seed), rate=0.3)) for seed in range(400)]
    assert np.mean([len(words) for words in kept]) == pytest.approx(0.7 * len(WORDS), rel=0.03)
    for words in kept:
        remaining = iter(WORDS)
        assert all(word in remaining for word in words)  # in the order of the text
    for seed in range(50):
        changed = random_deletion(split_words(TEXT), generator(seed), rate=1.0)
        assert len(words_of(changed)) == 1
        assert "".join(changed).count(",") == 1  # punctuation stays
    assert "".join(random_deletion(split_words("one two three"), generator(1), rate=0.5)) in (
        "one two three", "two three", "one three", "one two ", "one ", "two ", "three",
    )  # fmt: skip


def test_swap_keeps_every_word_and_what_is_between_them():
    moved = 0
    for seed in range(100):
        pieces = random_swap(split_words(TEXT), generator(seed), rate=0.2)
        assert sorted(words_of(pieces)) == sorted(WORDS)
        frame = ["x" if piece[:1].isalnum() else piece for piece in pieces]
        assert frame == ["x" if piece[:1].isalnum() else piece for piece in split_words(TEXT)]
        moved += sum(one != other for one, other in zip(words_of(pieces), WORDS, strict=True))
    # Two swaps of eleven words on average, each of which moves two, now and then the same ones.
    assert 2.5 < moved / 100 < 4.4


def test_insertion_adds_synonyms_of_words_that_are_there(synonyms):
    added = []
    for seed in range(200):
        pieces = random_insertion(split_words(TEXT), generator(seed), rate=0.2, synonyms=synonyms)
        new = list(words_of(pieces))
        for each in WORDS:
            new.remove(each)
        added.append(len(new))
        assert set(new) <= {"movie", "motion", "picture", "amusing"}
    assert 1.8 < np.mean(added) < 3.5  # 2.2 insertions, some of two words
    assert "  " not in "".join(pieces)


def test_replacement_keeps_the_frame_and_capitals(synonyms):
    seen = set()
    for seed in range(60):
        seen.add(
            "".join(
                synonym_replacement(
                    split_words("Funny film, a FILM."), generator(seed), rate=1.0, synonyms=synonyms
                )
            )
        )
    assert {text.split()[0] for text in seen} == {"Amusing"}
    assert any(text.startswith("Amusing motion picture, a ") for text in seen)
    assert all(text.endswith(".") and ", a " in text for text in seen)
    one = [
        synonym_replacement(split_words("funny film"), generator(seed), rate=0.5, synonyms=synonyms)
        for seed in range(40)
    ]
    assert {("amusing" in pieces) + ("film" not in pieces) for pieces in one} == {
        1
    }  # half of two words is one


def test_chinese_words_of_several_characters_are_found_and_inserted_without_spaces(synonyms):
    replaced = synonym_replacement(split_words("价格便宜。"), generator(), rate=1.0, synonyms=synonyms)
    assert "".join(replaced) == "价格实惠。"
    inserted = "".join(random_insertion(split_words("价格便宜。"), generator(), rate=0.5, synonyms=synonyms))
    assert "实惠" in inserted and " " not in inserted


def test_ids_outside_a_graph_are_padded_like_those_inside():
    rows = [np.arange(5, 5 + count, dtype=np.int32) for count in (3, 0, 9)]
    lengths = np.array([3, 0, 9])
    tokens = TokenTexts(np.concatenate(rows), np.cumsum(lengths) - lengths, lengths)
    for ends in (((), ()), ((START,), (END,))):
        inside = TokenSequences(tokens, 6, np.zeros(3), *ends).read(tf.range(3)).numpy()
        np.testing.assert_array_equal(padded(rows, 6, *ends), inside)
    assert padded([np.zeros(0, np.int32)], 6).tolist() == [[UNKNOWN]]


# Batches


def task(tokenizer, max_length=12, ends=((), ()), name="text_classification"):
    return SimpleNamespace(
        name=name, ends=ends, info=SimpleNamespace(tokenizer=tokenizer, max_length=max_length)
    )


def examples(texts):
    return TextExamples({"text": Texts.of(texts)}, np.zeros(len(texts), np.int32))


def batch(augment, indices=(0, 1, 2), seed=7, step=3, epoch=0):
    place = Position.of(seed, tf.constant(step, tf.int64), tf.constant(epoch, tf.int64), tf.constant(indices))
    run = tf.function(lambda: augment(tf.zeros([len(indices), 4], tf.int32), tf.ones(len(indices)), place))
    return run()[0].numpy()


DOCUMENTS = ["one two three four five six seven", "alpha beta gamma delta epsilon", "x y z " * 10]


@pytest.fixture
def augment():
    tokenizer = Tokenizer(word(DOCUMENTS).to_str())
    specs = [Spec(name="random_swap", rate=0.5), Spec(name="random_deletion", rate=0.3)]
    return build_text_augment(specs, examples(DOCUMENTS), task(tokenizer))


def test_a_batch_is_a_function_of_seed_epoch_and_example(augment):
    first = batch(augment)
    assert first.dtype == np.int32
    np.testing.assert_array_equal(batch(augment), first)
    np.testing.assert_array_equal(
        batch(augment, step=99), first
    )  # the example's own draw, in whichever batch
    alone = batch(augment, indices=(1,))
    np.testing.assert_array_equal(alone[0], first[1][first[1] > 0])
    for other in ({"epoch": 1}, {"seed": 8}):
        changed = batch(augment, **other)
        assert changed.shape != first.shape or (changed != first).any()


def test_the_shape_is_known_to_the_graph(augment):
    shapes = []

    @tf.function
    def look():
        place = Position.of(0, tf.zeros([], tf.int64), tf.zeros([], tf.int64), tf.range(3))
        shapes.append(augment(tf.zeros([3, 4], tf.int32), tf.zeros(3), place)[0].shape)

    look()
    assert shapes[0].as_list() == [None, None]


def test_rate_0_gives_the_tokens_of_the_task_itself():
    tokenizer = Tokenizer(character(DOCUMENTS).to_str())
    for ends in (((), ()), ((START,), (END,))):
        specs = [Spec(name="random_swap", rate=0.0), Spec(name="random_deletion", rate=0.0)]
        augment = build_text_augment(specs, examples(DOCUMENTS), task(tokenizer, 20, ends))
        np.testing.assert_array_equal(batch(augment), padded(tokenizer.encode(DOCUMENTS), 20, *ends))


def test_other_tasks_and_missing_synonyms_are_refused_before_anything_is_read(tmp_path):
    tokenizer = Tokenizer(word(DOCUMENTS).to_str())
    with pytest.raises(DlcliError, match=r"random_swap would change words that task language_modeling"):
        build_text_augment(
            [Spec(name="random_swap")], examples(DOCUMENTS), task(tokenizer, name="language_modeling")
        )
    missing = Spec(name="synonym_replacement", rate=0.1, synonyms=str(tmp_path / "none.txt"))
    with pytest.raises(
        DlcliError, match=r"dataset.augmentation synonym_replacement: .*none\.txt: no such file"
    ):
        build_text_augment([missing], examples(DOCUMENTS), task(tokenizer))
    assert build_text_augment([], examples(DOCUMENTS), task(tokenizer, name="language_modeling")) is None


def test_a_recipe_with_all_four_trains_and_learns(tmp_path: Path, synonyms, no_pictures) -> None:
    random = generator()
    rows = ["text\tlabel"]
    for index in range(160):
        mark = ("good", "fine", "great") if index % 2 else ("bad", "poor", "awful")
        words = random.choice([*"abcdefgh", *mark * 2, "film", "funny"], 12)
        rows.append(" ".join([*words, mark[0]]) + f"\t{'pos' if index % 2 else 'neg'}")
    (tmp_path / "train.tsv").write_text("\n".join(rows) + "\n")
    changes = ["random_deletion", "random_swap"]
    augmentation = [{"name": name, "rate": 0.2} for name in changes]
    augmentation += [
        {"name": name, "rate": 0.2, "synonyms": str(synonyms)}
        for name in ("random_insertion", "synonym_replacement")
    ]
    (tmp_path / "recipe.yaml").write_text(
        json.dumps(
            {
                "task": "text_classification",
                "dataset": {
                    "name": "text_csv", "path": str(tmp_path / "train.tsv"), "text": "text", "target": "label",
                    "tokenizer": "word", "max_length": 16, "augmentation": augmentation,
                },
                "architecture": {"name": "fasttext", "buckets": 50, "embedding_width": 8},
                "optimizer": {"name": "adam", "learning_rate": 0.02},
                "training": {"epochs": 3, "batch_size": 8},
            }
        )
    )  # fmt: skip
    run = train(load_recipe(tmp_path / "recipe.yaml"), "augmented", tmp_path / "run")
    assert run.metrics["metrics"]["accuracy"] > 0.9
