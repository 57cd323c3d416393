"""Pictures of many small images: each tile where it belongs, pixel for pixel."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from dlcli.evaluation.samples import grid
from dlcli.evaluation.samples.grid import Grid, columns_for, grid_picture, shortened, write_grid

WHITE = 255


def tiles(count: int, side: int = 4, channels: int = 1) -> np.ndarray:
    """Tile n is all n + 1."""
    return np.stack([np.full((side, side, channels), number + 1, np.uint8) for number in range(count)])


def test_tiles_stand_row_after_row_each_enlarged_by_a_whole_factor() -> None:
    images = tiles(5)
    images[1, :, :2] = 200  # the left half of the second
    picture = grid_picture(Grid(images, 3))
    factor, gap = 14, 2  # 56 pixels a tile
    assert picture.shape == (2 * (56 + gap) + gap, 3 * (56 + gap) + gap, 1)
    for number in (0, 2, 3, 4):
        row, column = divmod(number, 3)
        top, left = gap + row * 58, gap + column * 58
        assert (picture[top : top + 56, left : left + 56] == number + 1).all()
    second = picture[gap : gap + 56, gap + 58 : gap + 58 + 56, 0]
    assert (second[:, : 2 * factor] == 200).all() and (second[:, 2 * factor :] == 2).all()  # no blur
    assert (picture[60:, -58:] == WHITE).all()  # the sixth place stays empty
    assert (picture[0] == WHITE).all() and (picture[:, 58:60] == WHITE).all()


def test_large_images_are_made_smaller_than_the_picture_allows(monkeypatch) -> None:
    monkeypatch.setattr(grid, "LARGEST_SIDE", 100)
    assert grid_picture(Grid(tiles(4, side=100, channels=3), 2)).shape == (2 * 52 + 2, 2 * 52 + 2, 3)
    assert grid_picture(Grid(tiles(1, side=90, channels=3), 1)).shape == (94, 94, 3)


def test_images_of_the_usual_sizes_are_kept_pixel_for_pixel() -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 48, 3), dtype=np.uint8)
    assert (grid_picture(Grid(image, 1))[2:-2, 2:-2] == image[0]).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_names_stand_beside_their_rows_and_above_their_columns(channels: int) -> None:
    plain = grid_picture(Grid(tiles(4, channels=channels), 2))
    rows = grid_picture(Grid(tiles(4, channels=channels), 2, row_names=("cat", "")))
    margin = rows.shape[1] - plain.shape[1]
    assert margin > 10 and rows.shape[0] == plain.shape[0]
    assert (rows[:, margin:] == plain).all()
    written = (rows[:, :margin] < 128).any(axis=(1, 2))
    assert written[:58].any() and not written[60:].any()  # a name for the first row, none for the second
    columns = grid_picture(Grid(tiles(4, channels=channels), 2, column_names=("", "dog")))
    above = columns.shape[0] - plain.shape[0]
    assert above > 10 and (columns[above:] == plain).all()
    inked = (columns[:above] < 128).any(axis=(0, 2))
    assert inked[60:].any() and not inked[:58].any()


def test_long_names_end_in_an_ellipsis_that_fits() -> None:
    assert shortened("cat", 100) == "cat"
    cut = shortened("a very long name of a class\nin two lines", 60)
    assert cut.endswith("…") and cut.startswith("a ve") and grid._font().getlength(cut) <= 60


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="float64"):
        grid_picture(Grid(np.zeros((1, 4, 4, 1)), 1))
    with pytest.raises(ValueError, match="uint8"):
        grid_picture(Grid(np.zeros((0, 4, 4, 1), np.uint8), 1))


def test_a_grid_is_written_as_it_is(tmp_path) -> None:
    for channels, mode in ((1, "L"), (3, "RGB")):
        shown = Grid(tiles(6, channels=channels), columns_for(6))
        assert shown.columns == 3
        write_grid(shown, tmp_path / "grid.png")
        with Image.open(tmp_path / "grid.png") as picture:
            assert picture.mode == mode
            assert (np.asarray(picture).reshape(grid_picture(shown).shape) == grid_picture(shown)).all()
