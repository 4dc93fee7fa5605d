"""The texts: the same in every language, but for the words; and complete where names are looked up."""

import string
from dataclasses import asdict

import pytest

from housing_serving.explanation import LOCATION
from housing_serving.features import CATEGORIES, RAW_FEATURES, ROW_FEATURES
from housing_serving.schemas import PredictionWarning
from housing_serving.webapp.texts import ENGLISH, LANGUAGES, SPANISH
from housing_serving.webapp.values import category_name, money, name_of, warning_text

# The same word in both languages.
SHARED = {"example_fresno", "r2_name", "wmape"}


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_every_language_has_every_text_with_the_same_placeholders() -> None:
    english = asdict(ENGLISH)
    for _, texts in LANGUAGES.values():
        own = asdict(texts)
        assert set(own) == set(english)
        assert all(text.strip() for text in own.values())
        assert {name: placeholders(text) for name, text in own.items()} == {
            name: placeholders(text) for name, text in english.items()
        }


def test_nothing_is_left_in_the_other_language() -> None:
    english, spanish = asdict(ENGLISH), asdict(SPANISH)
    assert {name for name in english if english[name] == spanish[name]} == SHARED


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_input_ratio_and_category_has_a_name(language: str) -> None:
    texts = dict(LANGUAGES.items())[language][1]  # type: ignore[index]
    for field in (*RAW_FEATURES, *ROW_FEATURES, LOCATION):
        assert name_of(field, texts) != field
    assert len({category_name(category, texts) for category in CATEGORIES}) == len(CATEGORIES)


def test_warnings_are_told_in_the_language_of_the_visitor() -> None:
    warning = PredictionWarning(field="median_income", code="above_training_range", message="18 is above 15.")
    assert warning_text(warning, SPANISH) == (
        "Ingreso mediano ($10,000 al año): por encima de todo lo visto al entrenar"
    )


@pytest.mark.parametrize(
    ("dollars", "signed", "text"),
    [
        (461_919.4, False, "$461,919"),
        (1200, True, "+$1,200"),
        (-1200.6, True, "-$1,201"),
        (-0.4, False, "$0"),
    ],
)
def test_amounts(dollars: float, signed: bool, text: str) -> None:
    assert money(dollars, signed=signed) == text
