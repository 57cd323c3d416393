from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from dlcli.errors import OutputError
from dlcli.explain.attribution import Attribution, Subject
from dlcli.explain.image import heat, lettering, picture
from dlcli.explain.image.heat import heatmap, overlay, resized, scale_of, shown_pixels, thumbnail
from dlcli.explain.image.picture import draw_image, trust_sentences
from dlcli.explain.record import Explained, Trust

TRUST = Trust(0.81, 0.22, 0.5, 0.48, 0.05, completeness=0.004, stability=0.93)


def blob(height=32, width=32):
    """A map with its top at two thirds of the height and one third of the width."""
    y, x = np.mgrid[:height, :width]
    return np.exp(-((y / height - 2 / 3) ** 2 + (x / width - 1 / 3) ** 2) * 30).astype(np.float32)


def attributed(values, signed=False, **more):
    return Attribution(np.asarray(values, np.float32), signed, **more)


def explained(attribution, image=None, **changes):
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8) if image is None else image
    one = Explained(
        Subject("folder/cat.jpg", image),
        "grad_cam",
        3,
        "cat",
        5.2,
        "logit",
        0.93,
        "cat",
        0.93,
        attribution,
        TRUST,
    )
    return replace(one, **changes)


def pixels(path):
    """The picture, whole and not blank."""
    with Image.open(path) as image:
        image.load()
        array = np.asarray(image.convert("RGB"))
    assert array.std() > 5
    return array


@pytest.fixture
def said(monkeypatch):
    """All words that are drawn."""
    words = []
    write = picture._Sheet.text

    def text(sheet, x, y, text, **style):
        words.append(text)
        write(sheet, x, y, text, **style)

    monkeypatch.setattr(picture._Sheet, "text", text)
    return words


def test_signed_scales_are_centred_on_zero():
    scale = scale_of(attributed([[-4, 1], [2, 0]], signed=True))
    assert (scale.low, scale.high) == (-scale.high, pytest.approx(3.97))  # the 99.5th percentile of the sizes
    zero, most, least = heatmap(np.asarray([[0, 9, -9]]), scale)[0].astype(int)
    assert zero.min() > 240  # white
    assert most[0] > most[2] + 60  # red speaks for
    assert least[2] > least[0] + 60  # blue against


def test_unsigned_scales_go_from_the_least_to_the_largest():
    scale = scale_of(attributed(np.linspace(2, 3, 10_000).reshape(100, 100)))
    assert scale.low == 2
    assert scale.high == pytest.approx(2.995)
    assert scale.clipped == pytest.approx(0.005)
    dark, bright = heatmap(np.asarray([[2, 3]]), scale)[0].astype(int)
    assert dark.sum() < 30
    assert bright.sum() > 500


def test_a_single_pixel_of_a_large_map_is_still_seen():
    values = np.zeros((100, 100))
    values[50, 50] = 0.25
    for signed in (False, True):
        scale = scale_of(attributed(values, signed))
        assert (scale.high, scale.clipped) == (0.25, 0)


@pytest.mark.parametrize(
    "values", [np.zeros((4, 4)), np.full((4, 4), 7.0), [[np.nan, 1], [2, 3]], [[np.inf, 1]]]
)
def test_flat_and_broken_maps_have_no_scale(values):
    assert scale_of(attributed(values)) is None
    one = explained(attributed(values))
    assert thumbnail(one.subject, one) is None


def test_an_overlay_is_colourful_where_the_attribution_is_and_grey_elsewhere():
    values = np.zeros((20, 20), np.float32)
    values[:5, :5], values[10:15, 10:15] = 1, -1
    grey = np.full((20, 20, 3), 128, np.uint8)
    laid = overlay(grey, values, scale_of(attributed(values, signed=True))).astype(int)
    assert laid[2, 2, 0] - laid[2, 2, 2] > 40
    assert laid[12, 12, 2] - laid[12, 12, 0] > 40
    assert np.ptp(laid[18, 2]) <= 2


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (np.full((2, 2, 3), 7, np.uint8), 7),
        (np.full((2, 2, 1), 7, np.uint8), 7),
        (np.full((2, 2), 7, np.uint8), 7),
        (np.zeros((2, 2, 4), np.uint8), 255),  # transparent: white
        (np.full((2, 2, 5), 7, np.uint8), 7),
        (np.full((2, 2, 3), 0.5, np.float32), 128),
        (np.full((2, 2, 3), 120.0, np.float32), 120),
        (np.ones((2, 2, 3), np.uint8), 1),  # bytes are never stretched
        (np.full((2, 2, 3), np.nan, np.float32), 0),
    ],
)
def test_images_of_any_model_are_shown(image, expected):
    shown = shown_pixels(image)
    assert shown.dtype == np.uint8
    assert shown.shape == (2, 2, 3)
    assert (shown == expected).all()


def test_numbers_around_zero_are_stretched():
    assert shown_pixels(np.asarray([[-1.0, 0.0, 1.0]])).tolist() == [[[0] * 3, [128] * 3, [255] * 3]]


def test_small_images_are_enlarged_by_squares():
    values = np.asarray([[0, 1], [2, 3]], np.float32)
    assert (resized(values, 8, 8) == np.kron(values, np.ones((4, 4)))).all()
    colors = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert (resized(colors, 4, 4) == colors.repeat(2, axis=0).repeat(2, axis=1)).all()
    # Smaller: values are averaged, so that the sum of a fine map is not left to chance.
    fine = np.tile([[0, 1]], (64, 32)).astype(np.float32)
    assert resized(fine, 8, 8) == pytest.approx(0.5, abs=0.15)


def test_the_three_panels_stand_side_by_side(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    values = blob()
    scale = draw_image([explained(attributed(values), image)], tmp_path / "cat.grad_cam.png")[0]
    drawn = pixels(tmp_path / "cat.grad_cam.png")
    panels = [image, heatmap(values, scale), overlay(image, values, scale)]
    # Every pixel of the image is a square of 9x9 in the picture, exactly.
    found = [_position(drawn, resized(panel, 288, 288)) for panel in panels]
    assert len({y for y, _ in found}) == 1
    assert found[0][1] + 288 < found[1][1]
    assert found[1][1] + 288 < found[2][1]


def _position(drawn, panel):
    """(y, x) where a panel stands in a picture; its outermost pixels lie under the frame."""
    inner = panel[2:-2, 2:-2]
    row = inner[140]
    for y, x in zip(*np.nonzero((drawn == row[0]).all(axis=-1)), strict=True):
        if not np.array_equal(drawn[y, x : x + len(row)], row):
            continue
        place = drawn[max(0, y - 140) :, x:][: len(inner), : inner.shape[1]]
        if place.shape == inner.shape and (place == inner).all():
            return int(y) - 140, int(x)
    raise AssertionError("the panel is not in the picture")


def test_the_words_say_what_must_be_known(tmp_path, said):
    attribution = attributed(
        blob().clip(0.3, 0.7) - 0.5,
        signed=True,
        scores={"r2": 0.12, "segments": 6},
        warnings=("R2 0.12 is below 0.3: no line",),
    )
    draw_image(
        [explained(attribution, method="lime", predicted="dog", predicted_probability=0.6)],
        tmp_path / "a.png",
    )
    words = "\n".join(said)
    for part in (
        "folder/cat.jpg", "predicted: dog, 60.0 %", "lime: why cat?", "probability 93.0 %", "logit 5.2", "input 32x32",
        "Faithfulness +0.57, better than random", "Stability over seeds 0.93", "sum of attributions off by 0.4 %", "R2 0.12; 6 segments",
        "R2 0.12 is below 0.3: no line", "for", "against", "0.2", "-0.2",
    ):  # fmt: skip
        assert part in words


@pytest.mark.parametrize(
    ("values", "why"),
    [(np.zeros((32, 32)), "The map is flat"), (np.full((32, 32), np.nan), "1024 of 1024 attributions")],
)
def test_a_map_without_anything_to_show_is_said_in_words(tmp_path, said, values, why):
    assert draw_image([explained(attributed(values), trust=None)], tmp_path / "a.png") == [None]
    assert "no heatmap" in said
    assert why in " ".join(said)
    assert "overlay" not in said
    drawn = pixels(tmp_path / "a.png")
    assert np.ptp(drawn[:, 330:].astype(int), axis=-1).max() < 250  # no colour bar, no heatmap


def test_a_row_for_each_class(tmp_path, said):
    first = explained(attributed(blob(), signed=True))
    second = replace(first, class_name="dog", output=5, attribution=attributed(-3 * blob(), signed=True))
    scales = draw_image([first, second], tmp_path / "two.png")
    draw_image([first], tmp_path / "one.png")
    assert pixels(tmp_path / "two.png").shape[0] > 1.7 * pixels(tmp_path / "one.png").shape[0]
    assert scales[1].high == pytest.approx(3 * scales[0].high)
    assert scales[0].record() == {
        "low": -scales[0].high, "high": pytest.approx(scales[0].high), "colors": "RdBu_r", "clipped": 0.00585938,
    } | {"low": pytest.approx(-scales[0].high)}  # fmt: skip
    assert [word for word in said if "why" in word][:2] == [
        "grad_cam: why cat?  probability 93.0 %  logit 5.2", "grad_cam: why dog?  probability 93.0 %  logit 5.2",
    ]  # fmt: skip


def test_the_original_is_shown_where_the_model_reads_it_at_another_size(tmp_path, said):
    original = np.random.default_rng(1).integers(0, 256, (144, 72, 3), np.uint8)
    subject = Subject(
        "cat.jpg", np.zeros((16, 16, 3), np.uint8), original=original, notes=("resized from 72x144",)
    )
    draw_image([replace(explained(attributed(blob(16, 16))), subject=subject)], tmp_path / "a.png")
    _position(pixels(tmp_path / "a.png"), resized(original, 288, 144))
    assert "original, read as 16x16" in said
    assert "resized from 72x144" in said


@pytest.mark.parametrize("size", [(1, 1), (2, 500), (500, 2), (1000, 1200), (28, 28)])
def test_images_of_all_shapes_are_drawn(tmp_path, size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 1), np.uint8)
    values = np.random.default_rng(1).normal(size=size)
    draw_image([explained(attributed(values, signed=True), image)], tmp_path / "a.png")
    height, width, _ = pixels(tmp_path / "a.png").shape
    assert 120 < height < 600
    assert 600 < width < 1200


def test_odd_names_stay_inside_the_picture(tmp_path):
    names = ["日本語の名前", "n" * 300, "$x_1$ <b>", "emoji 🐱", "line\nbreak", "שלום", "", "%s {}", "\udcff"]
    widths = set()
    for name in names:
        one = explained(attributed(blob()), class_name=name, predicted=name)
        subject = Subject("x/" * 300 + name, one.subject.inputs, notes=(name,) * 9)
        draw_image([replace(one, subject=subject)], tmp_path / "a.png")
        drawn = pixels(tmp_path / "a.png")
        widths.add(drawn.shape[1])
        assert (drawn[:, -8:] == 255).all()
    assert len(widths) == 1


def test_pictures_are_the_same_bytes_each_time(tmp_path):
    for name in ("a.png", "b.png"):
        draw_image([explained(attributed(blob()))], tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_explanations_of_two_subjects_are_refused(tmp_path):
    with pytest.raises(ValueError, match="one subject"):
        draw_image([explained(attributed(blob())), explained(attributed(blob()))], tmp_path / "a.png")
    with pytest.raises(ValueError, match="one subject"):
        draw_image([], tmp_path / "a.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        draw_image([explained(attributed(blob()))], tmp_path / "file" / "a.png")


def test_values_have_no_probability(said, tmp_path):
    one = explained(
        attributed(blob()), probability=None, predicted_probability=None, scale="value", predicted="age 31"
    )
    draw_image([one], tmp_path / "a.png")
    assert "predicted: age 31" in said
    assert "grad_cam: why cat?  value 5.2" in said


def test_trust_that_was_not_measured_is_said():
    assert trust_sentences(explained(attributed(blob()), trust=None)) == ["Faithfulness not measured"]
    worse = Trust(0.2, 0.6, 0.5, 0.5, 0.05)
    assert "-0.40, worse than random" in trust_sentences(explained(attributed(blob()), trust=worse))[0]


@pytest.mark.parametrize("size", [(32, 32), (300, 200), (1000, 3)])
def test_thumbnails_are_small_and_show_the_overlay(size):
    image = np.full((*size, 3), 128, np.uint8)
    one = explained(attributed(blob(*size)), image)
    plain, laid = (
        np.asarray(Image.open(BytesIO(thumbnail(one.subject, each))).convert("RGB")).astype(int)
        for each in (None, one)
    )
    assert plain.shape == laid.shape
    assert max(laid.shape) == min(heat.THUMBNAIL, max(size))
    assert np.ptp(plain, axis=-1).max() < 6
    if min(size) > 3:
        y, x = np.unravel_index(np.ptp(laid, axis=-1).argmax(), laid.shape[:2])
        assert (y / laid.shape[0], x / laid.shape[1]) == pytest.approx((2 / 3, 1 / 3), abs=0.2)


def test_text_is_measured_as_it_is_drawn():
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    text = "Faithfulness +0.57, better than random (insertion 0.81)"
    figure = Figure(dpi=lettering.DPI)
    canvas = FigureCanvasAgg(figure)
    drawn = figure.text(0, 0, text, fontsize=lettering.POINTS).get_window_extent(canvas.get_renderer()).width
    assert lettering.width(text) == pytest.approx(drawn, rel=0.03)


@pytest.mark.parametrize(
    "text", ["a few words in a line " * 9, "n" * 300, "猫" * 50, "a " + "W" * 80 + " b", ""]
)
def test_lines_are_no_wider_than_their_room(text):
    lines = lettering.wrapped(text, 200)
    assert all(lettering.width(line) <= 200 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert lettering.width(lettering.ending(text, 200)) <= 200
    assert lettering.width(lettering.beginning(text, 200)) <= 200
    assert lettering.ending("a/b.png", 200) == lettering.beginning("a/b.png", 200) == "a/b.png"
