"""Texts from outside: what counts as the same name, and what a list of names says."""

from __future__ import annotations

import unicodedata

import pytest

from ann.data.text import check_encoding, join_names, path_key, plain, split_names, words
from ann.errors import DatasetError


def test_the_same_name_in_any_form_is_one_name():
    composed, decomposed = (unicodedata.normalize(form, "Gebäude") for form in ("NFC", "NFD"))
    assert composed != decomposed
    assert plain(f" {decomposed}\t") == plain(composed) == composed
    assert plain(7) == "7"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("building,tank", ["building", "tank"]),
        (" building , tank ", ["building", "tank"]),
        ('building, "roof, flat"', ["building", "roof, flat"]),
        ('"say ""roof""",6" pipe', ['say "roof"', '6" pipe']),
        ("a,,b,", ["a", "", "b", ""]),
        ("cost_$5_$8", ["cost_$5_$8"]),
        ("", []),
    ],
)
def test_names_are_separated_by_commas_outside_of_quotes(text, names):
    assert split_names(text) == names
    assert split_names(join_names(names)) == names


@pytest.mark.parametrize("text", ['"roof, flat', '"roof" flat,b'])
def test_quotes_that_do_not_fit_are_an_error(text):
    with pytest.raises(DatasetError, match="double quotes"):
        split_names(text)


@pytest.mark.parametrize("name", ["a\\b c.png", "a/b%20c.png", "./a/b c.png", "a//b c.png", "a\\b%20c.png"])
def test_a_path_is_the_same_however_it_is_written(name):
    assert path_key(name) == "a/b c.png"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("instances_val2017", {"instances", "val"}),
        ("valley", {"valley"}),
        ("latest", {"latest"}),
        ("cityVal", {"city", "val"}),
        ("CITY-TEST.v2", {"city", "test", "v"}),
        ("Gebäude_val", {"gebäude", "val"}),
    ],
)
def test_words_of_a_name_are_whole(name, expected):
    assert words(name) == expected


def test_a_file_name_that_is_not_utf8_is_shown_and_refused():
    check_encoding("Gebäude.tif")
    with pytest.raises(DatasetError, match=r"Geb\\xe4ude\.tif isn't UTF-8"):
        check_encoding(b"Geb\xe4ude.tif".decode("utf-8", "surrogateescape"))
