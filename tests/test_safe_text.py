from __future__ import annotations

import pytest

from harness.safe_text import escape_controls, escape_name, listed


@pytest.mark.parametrize("name", ["cell 1", "Zelle_ä", "細胞", "a'b\"c <script>$x$", "‌می‌خواهم"])
def test_harmless_names_stay_as_they_are(name: str) -> None:
    assert escape_name(name) == name


def test_names_are_composed_so_that_two_encodings_of_one_name_are_equal() -> None:
    assert escape_name("a\u0308") == escape_name("\u00e4") == "\u00e4"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\nb", "a\\nb"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\u202egnp", "a\\u202egnp"),
        ("a\u2028b", "a\\u2028b"),
        ("\x9b2Ja\x7f", "\\x9b2Ja\\x7f"),
        ("\uffff", "\\uffff"),
    ],
)
def test_control_and_reordering_characters_become_escapes(name: str, shown: str) -> None:
    assert escape_name(name) == shown


def test_bytes_that_are_no_utf8_become_escapes_that_can_be_encoded() -> None:
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    assert escape_name(name) == "caf\\xe9.png"
    assert escape_name(name).encode("utf-8")


def test_a_text_keeps_its_lines_and_its_form_and_loses_what_steers() -> None:
    assert escape_controls("a\u0308\n\tb") == "a\u0308\n\tb"
    assert escape_controls("a\x1b]0;title\x07\r\u202eb\udcff") == "a\\x1b]0;title\\x07\\r\\u202eb\\xff"


def test_a_long_list_says_how_many_more_there_are() -> None:
    assert listed([str(i) for i in range(13)], 10).endswith("… and 3 more")
