"""Values of a block group for people: their names, what is wrong with them, and how amounts are written."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from housing_serving.features import CATEGORICAL_FEATURE, CATEGORIES
from housing_serving.schemas import HousingInstance, PredictionWarning
from housing_serving.webapp.texts import Texts


@dataclass(frozen=True)
class Problem:
    """What is wrong with one value."""

    field: str
    message: str


def problems_of(values: Mapping[str, Any], texts: Texts) -> list[Problem]:
    """What the API would refuse, field by field; judged by the API's own schema.

    Args:
        values: The raw features; what is missing or None counts as empty.
        texts: In the visitor's language.
    """
    try:
        HousingInstance.model_validate({name: value for name, value in values.items() if value is not None})
    except ValidationError as error:
        return [
            Problem(str(problem["loc"][0]), _message(problem["type"], problem.get("ctx", {}), texts))
            for problem in error.errors(include_url=False)
        ]
    return []


def _message(kind: str, context: Mapping[str, Any], texts: Texts) -> str:
    match kind:
        case "greater_than_equal":
            return texts.too_small.format(limit=number_text(context["ge"]))
        case "less_than_equal":
            return texts.too_large.format(limit=number_text(context["le"]))
        case "missing":
            return texts.no_value
        case "unknown_category":
            return texts.no_category.format(limit=", ".join(CATEGORIES))
        case "float_type" | "finite_number":
            return texts.no_number
        case _:
            return texts.not_accepted.format(limit=kind)


def name_of(field: str, texts: Texts) -> str:
    """What people call an input, a ratio or `location`."""
    return str(getattr(texts, field, field))


def category_name(category: str, texts: Texts) -> str:
    """What people call an `ocean_proximity`."""
    names = (texts.less_than_an_hour, texts.inland, texts.island, texts.near_bay, texts.near_ocean)
    return dict(zip(CATEGORIES, names, strict=True)).get(category, category)


def warning_text(warning: PredictionWarning, texts: Texts) -> str:
    """A warning of the API in the visitor's language."""
    kinds = {
        "below_training_range": texts.below_training,
        "above_training_range": texts.above_training,
        "unseen_category": texts.unseen_category,
    }
    return kinds[warning.code].format(field=name_of(warning.field, texts))


def money(dollars: float, *, signed: bool = False) -> str:
    """As `$461,919`, or `+$1,200` and `-$1,200`."""
    sign = "-" if round(dollars) < 0 else "+" if signed else ""
    return f"{sign}${abs(round(dollars)):,}"


def number_text(number: float) -> str:
    """As `1,000,000` or `12.5`, with no more than four decimals."""
    return f"{number:,.4f}".rstrip("0").rstrip(".")


def plain(text: str) -> str:
    r"""A text for Streamlit's Markdown, which takes what is between two dollars for a formula."""
    return text.replace("$", r"\$")


def value_text(field: str, value: float | str | None, texts: Texts) -> str:
    """A value as it was sent."""
    if value is None:
        return ""
    return category_name(str(value), texts) if field == CATEGORICAL_FEATURE else number_text(float(value))
