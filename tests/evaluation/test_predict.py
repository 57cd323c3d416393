import csv
import io
import json
import os

import keras
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from dlcli.errors import DataError, DlcliError
from dlcli.evaluation.predict import (
    Head,
    Prediction,
    find_images,
    predict_images,
    predict_inputs,
    predict_table,
)
from dlcli.evaluation.prediction_files import prediction_record, predictions_table, write_predictions
from dlcli.evaluation.tables import print_predictions
from dlcli.layers.predictions import Predictions

COLORS = ["red", "green", "blue"]


def color_model(target="classes", size=(4, 6), names=COLORS):
    """Says which channel is brightest: the logits are the channels' means."""
    image = keras.Input((*size, 3), dtype="uint8", name="image")
    logits = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 51)(image))
    ending = {"scale": [51.0] * 3, "offset": [0.0] * 3} if target == "values" else {}
    return keras.Model(image, Predictions(target, names, **ending)(logits))


@pytest.fixture(scope="module")
def model():
    return color_model()


def save_image(path, color, size=(6, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path, format="PNG")
    return path


@pytest.fixture
def folder(tmp_path):
    """Seven images; by name red, green, blue, red, green, blue, red."""
    root = tmp_path / "photos"
    for index in range(5):
        save_image(root / "a" / f"{index}.png", COLORS[index % 3])
    save_image(root / "b" / "5.png", "blue", size=(30, 20))  # another size
    save_image(root / "b" / "6", "red")  # no suffix
    save_image(root / ".hidden" / "7.png", "red")
    save_image(root / "a" / ".8.png", "red")
    (root / "a" / "notes.txt").write_text("no image")
    return root


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 64])
def test_folders_are_predicted_in_order_whatever_the_batch(model, folder, batch_size):
    rows = list(predict_images(model, [folder], batch_size=batch_size))
    assert [row.class_name for row in rows] == [COLORS[index % 3] for index in range(7)]
    assert [os.path.relpath(row.input, folder) for row in rows] == [
        "a/0.png", "a/1.png", "a/2.png", "a/3.png", "a/4.png", "b/5.png", "b/6",
    ]  # fmt: skip
    assert all(row.error is None for row in rows)


def test_probabilities_are_the_models_own(model, tmp_path):
    path = save_image(tmp_path / "x.png", (255, 51, 0))
    row = next(iter(predict_images(model, [path], top=2)))
    logits = np.array([5.0, 1.0, 0.0])
    expected = np.exp(logits) / np.exp(logits).sum()
    assert row.outputs == pytest.approx(expected, abs=1e-6)
    assert row.probability == pytest.approx(expected[0])
    assert row.top == [("red", pytest.approx(expected[0])), ("green", pytest.approx(expected[1], abs=1e-6))]


def test_bad_files_become_errors_and_the_others_are_predicted(model, tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("I am not an image")
    whole = save_image(tmp_path / "whole.png", "blue", size=(60, 40)).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) - 40])
    (tmp_path / "none").mkdir()
    os.mkfifo(tmp_path / "pipe.png")
    names = ["empty.png", "text.png", "whole.png", "cut.png", "missing.png", "none", "pipe.png", "x" * 300]
    rows = list(predict_images(model, [tmp_path / name for name in names], batch_size=3))
    assert [row.class_name for row in rows] == [None, None, "blue", None, None, None, None, None]
    assert "empty (0 bytes)" in rows[0].error
    assert "not an image" in rows[1].error
    assert rows[2].error is None
    assert rows[3].error
    assert rows[4].error == "no such file or folder"
    assert rows[5].error == "holds no images"
    assert rows[6].error == "is not a regular file"
    assert "too long" in rows[7].error
    assert (rows[0].outputs, rows[0].top, rows[0].probability) == (None, [], None)


def test_only_bad_files(model, tmp_path):
    rows = list(predict_images(model, [tmp_path / "1.png", tmp_path / "2.png"]))
    assert [row.error for row in rows] == ["no such file or folder"] * 2


def test_patterns_and_their_traps(folder, tmp_path):
    found = [
        (path.name, error) for path, error in find_images([folder / "a" / "[0-2].png", folder / "**" / "5.*"])
    ]
    assert found == [("0.png", None), ("1.png", None), ("2.png", None), ("5.png", None)]
    odd = save_image(tmp_path / "a[1].png", "red")  # a name that looks like a pattern
    assert list(find_images([odd])) == [(odd, None)]
    broken = tmp_path / "star*.png"
    broken.symlink_to(tmp_path / "nowhere")
    assert list(find_images([broken])) == [(broken, "no such file or folder")]


def test_inputs_are_read_as_the_model_goes(model, folder):
    """A generator of a million paths must not be taken in at once."""
    taken = []

    def paths():
        for index in range(1000):
            taken.append(index)
            yield folder / "a" / "0.png"

    rows = predict_images(model, paths(), batch_size=4)
    next(rows)
    assert len(taken) <= 3 * 4
    rows.close()


def test_a_model_of_any_size_keeps_each_images_own(folder):
    model = color_model(size=(None, None))
    rows = list(predict_images(model, [folder], batch_size=7))
    assert [row.class_name for row in rows] == [COLORS[index % 3] for index in range(7)]


def test_grey_models_get_one_channel(tmp_path):
    image = keras.Input((2, 2, 1), dtype="uint8", name="image")
    logits = keras.layers.Flatten()(keras.layers.Rescaling(1.0)(image))
    model = keras.Model(image, Predictions("values", list("abcd"), scale=[1.0] * 4, offset=[0.0] * 4)(logits))
    row = next(iter(predict_images(model, [save_image(tmp_path / "x.png", (255, 0, 0), (2, 2))])))
    assert row.outputs.tolist() == [76.0] * 4  # luma of red
    assert (row.class_name, row.probability) == (None, None)
    assert row.top == [(name, 76.0) for name in "abcd"]


def test_labels_are_all_those_of_at_least_one_half(tmp_path):
    # Logits 5 * (channel / 255) - 0 give a sigmoid of at least 0.5 for every channel.
    head = Head("labels", ("sky", "sea", "sun"), 2)
    row = Prediction("x", head, np.array([0.5, 0.2, 0.9], np.float32))
    assert row.class_name == "sky; sun"
    assert row.probability is None
    assert [name for name, _ in row.top] == ["sun", "sky"]
    assert prediction_record(row)["labels"] == ["sky", "sun"]
    none = Prediction("x", head, np.array([0.1, 0.2, 0.3], np.float32))
    assert (none.class_name, prediction_record(none)["labels"]) == ("", [])


def test_a_label_may_hold_what_separates_labels(tmp_path):
    row = Prediction("x", Head("labels", ("sky; blue", "sea"), 2), np.array([0.9, 0.8], np.float32))
    assert row.labels == ("sky; blue", "sea")
    assert prediction_record(row)["labels"] == ["sky; blue", "sea"]


def test_outputs_that_are_no_numbers_are_errors(tmp_path):
    model = color_model("values")
    model.layers[-1].scale = [float("nan")] * 3
    model.make_predict_function(force=True)
    row = next(iter(predict_images(model, [save_image(tmp_path / "x.png", "red")])))
    assert row.error == "the model's output is not a finite number"


def test_a_model_without_class_names_is_refused(folder):
    image = keras.Input((4, 6, 3), dtype="uint8")
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1.0)(image)))
    with pytest.raises(DlcliError, match="GlobalAveragePooling2D"):
        list(predict_images(model, [folder]))


def test_a_saved_model_predicts_the_same(model, folder, tmp_path):
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    first, second = (np.stack([row.outputs for row in predict_images(m, [folder])]) for m in (model, loaded))
    assert np.array_equal(first, second)


# Tables


@pytest.fixture(scope="module")
def table_model():
    from dlcli.data.table_preprocessing import input_name

    inputs = {
        input_name("width, cm"): keras.Input((1,), dtype="float32", name=input_name("width, cm")),
        input_name("kind"): keras.Input((1,), dtype="string", name=input_name("kind")),
    }
    width, kind = inputs.values()
    encoded = keras.layers.StringLookup(vocabulary=["cat", "dog"], output_mode="one_hot", num_oov_indices=1)(
        kind
    )
    logits = keras.layers.Concatenate()([width, encoded])  # (width, unknown, cat, dog)
    return keras.Model(inputs, Predictions("classes", ["wide", "unknown", "cat", "dog"])(logits))


def test_rows_of_a_table(table_model, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('label,kind,"width, cm"\nx,dog,0\ny,cat,0.5\nz,cat,7\n,eel,-1\n')
    rows = list(predict_table(table_model, path, batch_size=3))
    assert [row.class_name for row in rows] == ["dog", "cat", "wide", "unknown"]
    assert [row.input for row in rows] == [f"{path} row {number}" for number in (1, 2, 3, 4)]


def test_a_table_that_lacks_a_column_or_holds_text(table_model, tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("kind\ndog\n")
    with pytest.raises(DataError, match="width, cm"):
        list(predict_table(table_model, path))
    good = tmp_path / "good.csv"
    good.write_text('kind,"width, cm"\ndog,0\n')
    rows = list(predict_inputs(table_model, [path, tmp_path / "none.csv", good]))
    assert "width, cm" in rows[0].error
    assert "no such file" in rows[1].error
    assert rows[2].class_name == "dog"


def test_a_table_is_read_as_the_recipe_says(table_model, tmp_path):
    """One row of commas beside semicolons that sniffing cannot know, in an encoding of its own."""
    path = tmp_path / "rows.csv"
    path.write_bytes('kind|"width, cm"|größe;a;b\ndog|0|x;y;z\n'.encode("utf-16-le"))
    rows = list(predict_inputs(table_model, [path], delimiter="|", encoding="utf-16-le"))
    assert [row.class_name for row in rows] == ["dog"]
    for wrong in ({"delimiter": ";", "encoding": "utf-16-le"}, {"encoding": "ascii"}):
        assert next(iter(predict_inputs(table_model, [path], **wrong))).error is not None


def test_inputs_of_an_image_model(model, folder):
    assert len(list(predict_inputs(model, [folder, folder / "a" / "0.png"], top=1, batch_size=2))) == 8


# Files


def some_rows(target="classes", names=("cat, big", "dog"), top=2):
    head = Head(target, names, min(top, len(names)))
    outputs = np.zeros(len(names), np.float32)
    outputs[:2] = 0.25, 0.75
    return [
        Prediction("bad.png", head, error='cannot be "read"'),
        Prediction("ü\n.png", head, outputs),
        Prediction("not\udcff.png", head, outputs),
    ]


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_csv_round_trip(tmp_path):
    counts = write_predictions(iter(some_rows()), tmp_path / "out" / "x.csv")
    assert counts == (2, 1)
    with (tmp_path / "out" / "x.csv").open(newline="", encoding="utf-8") as file:
        bad, good, _ = csv.DictReader(file)
    assert list(good) == [
        "input", "class", "probability", "class_2", "probability_2", "probability of cat, big",
        "probability of dog", "error",
    ]  # fmt: skip
    assert list(good.values()) == ["ü\n.png", "dog", "0.75", "cat, big", "0.25", "0.25", "0.75", ""]
    assert list(bad.values()) == ["bad.png", "", "", "", "", "", "", 'cannot be "read"']
    assert list(tmp_path.glob("out/.*")) == []


def test_json_round_trip(tmp_path):
    assert write_predictions(some_rows(), tmp_path / "x.JSON") == (2, 1)
    bad, good, _ = json.loads((tmp_path / "x.JSON").read_text(encoding="utf-8"))
    assert bad == {"input": "bad.png", "error": 'cannot be "read"'}
    assert good == {
        "input": "ü\n.png",
        "class": "dog",
        "probability": 0.75,
        "top": [{"class": "dog", "probability": 0.75}, {"class": "cat, big", "probability": 0.25}],
        "probabilities": {"cat, big": 0.25, "dog": 0.75},
    }
    write_predictions([], tmp_path / "none.json")
    assert json.loads((tmp_path / "none.json").read_text()) == []


def test_values_round_trip(tmp_path):
    write_predictions(some_rows("values", ("price", "age")), tmp_path / "x.csv")
    rows = read_csv(tmp_path / "x.csv")
    assert rows[0] == ["input", "price", "age", "error"]
    assert rows[2] == ["ü\n.png", "0.25", "0.75", ""]
    assert prediction_record(some_rows("values", ("price", "age"))[1])["values"] == {
        "price": 0.25,
        "age": 0.75,
    }


@pytest.mark.parametrize(("number", "columns"), [(100, 4 + 2 * 2 + 100), (101, 4 + 2 * 2)])
def test_more_than_100_classes_are_written_as_their_best(tmp_path, number, columns):
    names = tuple(f"class {index}" for index in range(number))
    write_predictions(some_rows(names=names, top=3), tmp_path / "x.csv")
    widths = {len(row) for row in read_csv(tmp_path / "x.csv")}
    assert widths == {columns}
    assert ("probabilities" in prediction_record(some_rows(names=names)[1])) == (number == 100)


def test_labels_have_columns_of_their_own(tmp_path):
    write_predictions(some_rows("labels"), tmp_path / "x.csv")
    rows = read_csv(tmp_path / "x.csv")
    assert rows[0][:6] == ["input", "labels", "class_1", "probability_1", "class_2", "probability_2"]
    assert rows[2][:4] == ["ü\n.png", "dog", "dog", "0.75"]
    assert {len(row) for row in rows} == {9}


def test_another_suffix_is_refused_before_any_input_is_read(tmp_path):
    def rows():
        raise AssertionError
        yield

    with pytest.raises(DlcliError, match=r"\.csv or \.json"):
        write_predictions(rows(), tmp_path / "x.xlsx")


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_a_failure_on_the_way_leaves_no_file(tmp_path, suffix):
    def rows():
        yield from some_rows()
        raise MemoryError

    with pytest.raises(MemoryError):
        write_predictions(rows(), tmp_path / f"x{suffix}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", ["classes", "labels", "values"])
def test_table_on_a_terminal(target):
    from rich.console import Console

    rows = some_rows(target, names=("[red]x", "dog"))[:2]
    console = Console(width=100)
    with console.capture() as capture:
        console.print(predictions_table(rows))
    text = capture.get()
    assert "[red]x" in text  # a name is not markup
    assert 'cannot be "read"' in text
    assert "75.0 %" in text or target == "values"
    assert "0.75" in text or target != "values"


def test_a_folder_named_like_a_file_is_refused_before_anything_is_read(tmp_path):
    (tmp_path / "x.csv").mkdir()

    def rows():
        raise AssertionError("read")
        yield

    with pytest.raises(DlcliError, match=r"x\.csv: is a folder"):
        write_predictions(rows(), tmp_path / "x.csv")


@pytest.mark.parametrize(
    ("rows", "message"), [(3, "1 of .*; the others are predicted"), (0, "1 of .*; nothing is predicted")]
)
def test_what_could_not_be_read_is_counted(rows, message):
    predictions = some_rows() if rows else [row for row in some_rows() if row.error]
    with pytest.raises(DlcliError, match=message):
        print_predictions(predictions, None, as_json=False)


def test_a_long_class_name_is_shown_whole_on_a_narrow_terminal():
    console = Console(width=40, file=io.StringIO())
    console.print(predictions_table(some_rows(names=("no", "y" * 60), top=1)[1:]))
    assert console.file.getvalue().count("y") >= 60
