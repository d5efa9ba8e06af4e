"""Pictures in the terminal, and the sheet of a gallery."""

from __future__ import annotations

import io

import numpy as np

from relight.demo import blocks, can_show_colour, in_terminal, letters, sheet

RED, BLUE = (255, 0, 0), (0, 0, 255)
COLOUR = {"TERM": "xterm-256color"}


class Terminal(io.TextIOWrapper):
    def __init__(self, encoding: str = "utf-8") -> None:
        super().__init__(io.BytesIO(), encoding=encoding)

    def isatty(self) -> bool:
        return True


def test_a_sheet_fills_rows_and_leaves_the_rest_white() -> None:
    picture = np.zeros((4, 6, 3), np.uint8)
    page = sheet([picture] * 5, columns=3)
    assert page.shape == (8, 18, 3)
    assert page[4:, 12:].min() == 255
    assert page[4:, :12].max() == 0
    assert sheet([picture]).shape == picture.shape


def test_colour_is_for_terminals_that_say_they_can() -> None:
    assert can_show_colour(Terminal(), COLOUR)
    assert not can_show_colour(io.StringIO(), COLOUR)
    assert not can_show_colour(Terminal(), {"TERM": "dumb"})
    assert not can_show_colour(Terminal(), COLOUR | {"NO_COLOR": "1"})
    assert not can_show_colour(Terminal("latin-1"), COLOUR)


def test_a_block_shows_two_pixels() -> None:
    text = blocks(np.array([[RED], [BLUE]], np.uint8))
    assert text == "\x1b[38;2;255;0;0m\x1b[48;2;0;0;255m▀\x1b[0m"


def test_letters_are_denser_where_the_picture_is_darker() -> None:
    assert letters(np.array([[0, 128, 255, 0]], np.uint8)) == "@= @"


def test_a_picture_keeps_its_shape_in_the_terminal() -> None:
    image = np.zeros((128, 256, 3), np.uint8)
    lines = in_terminal(image, Terminal(), COLOUR, columns=40).split("\n")
    assert len(lines) == 10  # half of 20, two pixels to a line
    assert all(line.count("▀") == 40 for line in lines)
    plain = in_terminal(image, io.StringIO(), COLOUR, columns=40).split("\n")
    assert plain == ["@" * 40] * 10
