"""The model a service with these settings would serve now, for those who price without a service."""

from pathlib import Path

from pydantic import ValidationError

from housing_serving.bundle import Bundle, BundleError
from housing_serving.deadline import Deadline
from housing_serving.settings import ServingSettings
from housing_serving.sources import (
    LoadedModel,
    ModelUnavailable,
    NotRegistered,
    StorageRoot,
    configured_sources,
    read_release,
    version_source,
)

__all__ = [
    "LoadedModel",
    "ModelUnavailable",
    "NotRegistered",
    "default_model",
    "model_in",
    "model_version",
    "refused_serving_settings",
    "serving_setting_names",
]


def default_model() -> LoadedModel:
    """The released version or, without a release, the model of the first source that has one.

    Raises:
        NotRegistered: every source works, and none has a model yet.
        ModelUnavailable: there is none to be had; every source says why.
        pydantic.ValidationError: the settings are wrong.
    """
    settings = ServingSettings.load()
    seconds = settings.housing_source_timeout_seconds
    root = StorageRoot.configured(settings)
    if root is not None:
        with Deadline(seconds) as deadline:
            release = read_release(root.reader(deadline))
        if release is not None:
            source = version_source(root, settings.mlflow_model_name, release.stable_version, seconds)
            return source.fetch().open()
    problems: list[ModelUnavailable] = []
    for source in configured_sources(settings):
        try:
            return source.fetch().open()
        except ModelUnavailable as error:
            problems.append(error)
    none_yet = all(isinstance(problem, NotRegistered) for problem in problems)
    raise (NotRegistered if none_yet else ModelUnavailable)("; ".join(map(str, problems)))


def model_version(version: int) -> LoadedModel:
    """One version of the storage root, released or not.

    Raises:
        ModelUnavailable: it cannot be had.
        pydantic.ValidationError: the settings are wrong.
    """
    settings = ServingSettings.load()
    # A bundle that the settings pin is another one than the one that is asked for.
    unpinned = settings.model_copy(update={"gcs_model_path": None, "local_model_path": None})
    root = StorageRoot.configured(unpinned)
    assert root is not None  # noqa: S101  (only a pin leaves none)
    seconds = settings.housing_source_timeout_seconds
    return version_source(root, settings.mlflow_model_name, version, seconds).fetch().open()


def model_in(folder: Path) -> LoadedModel:
    """The bundle in a folder.

    Raises:
        ModelUnavailable: there is no bundle that can be used.
    """
    try:
        return LoadedModel(Bundle.load(folder), "folder", str(folder))
    except BundleError as error:
        raise ModelUnavailable(str(error)) from error


def refused_serving_settings() -> ValidationError | None:
    """What is wrong with the service's settings; None when they are valid."""
    try:
        ServingSettings.load()
    except ValidationError as error:
        return error
    return None


def serving_setting_names() -> frozenset[str]:
    """The names that the service reads from the environment."""
    return frozenset(name.upper() for name in ServingSettings.model_fields)
