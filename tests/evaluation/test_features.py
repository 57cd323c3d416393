"""`dlcli features`: what is written is what the layer gives, whatever the inputs are, and nothing half written stays."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from dlcli.cli.main import app
from dlcli.data.text.sequences import padded
from dlcli.data.text.tokenizer import END, START, Tokenizer
from dlcli.data.text.tokenizers import word
from dlcli.errors import DlcliError
from dlcli.evaluation import features
from dlcli.evaluation.features import extract_features
from dlcli.layers.token_ids import PresetTokens
from dlcli.pretrained.backbone import Backbone
from dlcli.recipe.load import dump_recipe, load_recipe

TEXTS = ["a fine film", "dull and long and dull", "fine", "a a a a a a a a a a a a"]


def of_images(side: int | None = None) -> Backbone:
    keras.utils.set_random_seed(3)
    image = keras.Input((side, side, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255, dtype="float32")(image)
    return Backbone(
        keras.Model(image, keras.layers.Conv2D(5, 3, padding="same")(x)), "conv2d", "a.keras", "x"
    )


def of_texts() -> Backbone:
    keras.utils.set_random_seed(3)
    tokens = keras.Input((None,), dtype="int32")
    model = keras.Model(tokens, keras.layers.Embedding(30, 4, mask_zero=True)(tokens))
    return Backbone(model, "embedding", "a_run", "x", Tokenizer(word(TEXTS).to_str()), 8)


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[[Backbone], None]:
    return lambda backbone: monkeypatch.setattr(features, "load_backbone", lambda *_: backbone)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """100 images of two sizes, more than a batch."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    random = np.random.default_rng(0)
    for index in range(100):
        side = 6 if index % 3 else 9
        pixels = random.integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:03d}.png")
    return folder


def expected_of(backbone: Backbone, path: Path) -> np.ndarray:
    return np.asarray(backbone.model(np.asarray(Image.open(path))[None]))[0]


@pytest.mark.parametrize(("pooling", "reduce"), [("mean", np.mean), ("max", np.max)])
def test_images_of_any_size(pooling: Any, reduce: Any, use: Any, pictures: Path, tmp_path: Path) -> None:
    backbone = of_images()
    use(backbone)
    report = extract_features("a.keras", [str(pictures)], tmp_path / "new" / "f.npz", pooling=pooling)
    paths = sorted(pictures.iterdir())
    with np.load(tmp_path / "new" / "f.npz") as archive:
        assert sorted(archive.files) == ["errors", "features", "inputs"]
        assert archive["features"].dtype == np.float32 and report["shape"] == [100, 5]
        assert archive["inputs"].tolist() == [str(path) for path in paths]
        assert archive["errors"].shape == (0,)
        expected = [reduce(expected_of(backbone, path), (0, 1)) for path in paths]
        np.testing.assert_allclose(archive["features"], expected, rtol=1e-5, atol=1e-6)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["f.npz"]


def test_maps_as_they_are(use: Any, pictures: Path, tmp_path: Path) -> None:
    backbone = of_images(6)
    use(backbone)
    report = extract_features("a.keras", [str(pictures / "00[12].png")], tmp_path / "f.npz", pooling="none")
    assert report["shape"] == [2, 6, 6, 5]
    with np.load(tmp_path / "f.npz") as archive:
        np.testing.assert_allclose(
            archive["features"][1], expected_of(backbone, pictures / "002.png"), rtol=1e-5, atol=1e-6
        )
    with pytest.raises(DlcliError, match="a row of a CSV file holds a vector"):
        extract_features("a.keras", [str(pictures)], tmp_path / "f.csv", pooling="none")
    use(of_images())
    with pytest.raises(DlcliError, match=r"gives \? x \? x 5 numbers, more for .* a larger image"):
        extract_features("a.keras", [str(pictures)], tmp_path / "f.npz", pooling="none")


@pytest.mark.parametrize("option", ["pooling: first", "ends: true"])
def test_texts_are_read_as_the_run_reads_them(option: str, use: Any, tmp_path: Path) -> None:
    """Its column, and its special tokens."""
    backbone = of_texts()
    use(backbone)
    table = tmp_path / "t.csv"
    table.write_text("id,review\n1,fine film\n2,\n3,dull\n", encoding="utf-8")
    changes = [f"task={{name: text_classification, {option}}}", "architecture=fasttext"]
    dataset = f"dataset={{name: text_csv, path: {table}, text: review, target: id}}"
    (tmp_path / "run").mkdir()
    recipe = dump_recipe(load_recipe("imdb_fasttext", [dataset, *changes]))
    (tmp_path / "run" / "recipe.yaml").write_text(recipe, encoding="utf-8")
    extract_features(str(tmp_path / "run"), [*TEXTS, str(table)], tmp_path / "f.csv")
    with (tmp_path / "f.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["input", "feature_0", "feature_1", "feature_2", "feature_3", "error"]
    assert [row[0] for row in rows[1:]] == [*TEXTS, *(f"{table} row {row}" for row in (1, 2, 3))]
    assert rows[6] == [f"{table} row 2", "", "", "", "", "the text is empty"]
    for text, row in zip([*TEXTS, "fine film"], rows[1:6], strict=True):
        ids = padded(backbone.tokenizer.encode([text]), 8, (START,), (END,))
        expected = np.asarray(backbone.model(ids))[0].mean(axis=0)
        np.testing.assert_allclose(np.array(row[1:5], np.float32), expected, rtol=1e-6, atol=1e-7)
        assert row[5] == ""


@pytest.mark.parametrize(
    ("special", "ends"), [((0, 3, 1, 2, 4), ((START,), (END,))), ((0, 3, 1, 1, 4), ((), ()))]
)
def test_texts_of_a_preset_stand_between_its_own_tokens(
    special: tuple[int, ...], ends: Any, use: Any, tmp_path: Path
) -> None:
    tokens = keras.Input((None,), dtype="int32")
    ids = PresetTokens(30, special)(tokens)["token_ids"]
    model = keras.Model(tokens, keras.layers.Embedding(30, 4)(ids))
    backbone = replace(of_texts(), model=model)
    use(backbone)
    extract_features("hub:bert", TEXTS, tmp_path / "f.npz")
    with np.load(tmp_path / "f.npz") as archive:
        assert archive["inputs"].tolist() == TEXTS
        for text, row in zip(TEXTS, archive["features"], strict=True):
            alone = np.asarray(model(padded(backbone.tokenizer.encode([text]), 8, *ends)))[0]
            np.testing.assert_allclose(row, alone.mean(axis=0), rtol=1e-5, atol=1e-7)


def test_rows_of_a_table(use: Any, tmp_path: Path) -> None:
    age, job = keras.Input((1,), name="column_age"), keras.Input((1,), dtype="string", name="column_job")
    is_cook = keras.layers.StringLookup(vocabulary=["cook"], output_mode="one_hot")(job)
    model = keras.Model({"column_age": age, "column_job": job}, keras.layers.Concatenate()([age, is_cook]))
    use(Backbone(model, "concatenate", "runs/people", "x"))
    table = tmp_path / "t.csv"
    table.write_text("job;age;name\ncook;30;a\nsmith;40.5;b\n", encoding="utf-8")
    report = extract_features("runs/people", [str(table), str(tmp_path / "no.csv")], tmp_path / "f.npz")
    with np.load(tmp_path / "f.npz") as archive:
        np.testing.assert_array_equal(archive["features"], [[30, 0, 1], [40.5, 1, 0]])
    assert report["shape"] == [2, 3] and len(report["errors"]) == 1


def test_what_cannot_be_read_is_said_and_the_others_are_written(
    use: Any, pictures: Path, tmp_path: Path
) -> None:
    use(of_images())
    out = tmp_path / "f.npz"
    out.write_bytes(b"an older file")
    (pictures / "001.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    command = ["features", "a.keras", str(pictures), str(tmp_path / "no.png"), "--out", str(out), "--json"]
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, DlcliError) and "2 of the inputs could not be read" in str(
        result.exception
    )
    report = json.loads(result.stdout)
    assert report["shape"] == [99, 5] and report["pooling"] == "mean" and report["layer"] == "conv2d"
    with np.load(out) as archive:
        assert archive["features"].shape == (99, 5) and str(pictures / "001.png") not in archive["inputs"]
        assert archive["errors"].tolist() == report["errors"]
        assert report["errors"][1] == f"{tmp_path / 'no.png'}: no such file or folder"


def test_when_nothing_can_be_read_an_older_file_stays(use: Any, tmp_path: Path) -> None:
    use(of_images())
    for name in ("f.npz", "f.csv"):
        out = tmp_path / name
        out.write_bytes(b"an older file")
        with pytest.raises(DlcliError, match="none of the 1 inputs could be read; nothing is written"):
            extract_features("a.keras", [str(tmp_path / "no.png")], out)
        assert out.read_bytes() == b"an older file"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.csv", "f.npz"]


def test_a_file_of_another_kind_is_refused_before_anything_is_loaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(features, "load_backbone", lambda *_: pytest.fail("loaded"))
    with pytest.raises(DlcliError, match=r"ends with \.npz or \.csv"):
        extract_features("a.keras", ["a.png"], tmp_path / "f.json")
    (tmp_path / "f.npz").mkdir()
    with pytest.raises(DlcliError, match="is a folder"):
        extract_features("a.keras", ["a.png"], tmp_path / "f.npz")


def test_names_that_no_encoding_holds(use: Any, tmp_path: Path) -> None:
    use(of_images())
    Image.new("RGB", (4, 4)).save(tmp_path / "plain.png")
    odd = tmp_path / "caf\udce9 \U0001f600.png"
    (tmp_path / "plain.png").rename(odd)
    extract_features("a.keras", [str(odd), str(odd)], tmp_path / "f.npz")
    with np.load(tmp_path / "f.npz") as archive:
        assert archive["inputs"].tolist() == [f"{tmp_path}/caf\\udce9 \U0001f600.png"] * 2
