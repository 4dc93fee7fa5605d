"""Kubernetes: manifests are valid and fit each other, and runs and steps become jobs by value."""

from pathlib import Path
from typing import Any

import dagster as dg
import kubernetes_validate
import pytest
import yaml
from dagster._config import process_config
from dagster_k8s import K8sRunLauncher
from dagster_k8s.job import USER_DEFINED_K8S_JOB_CONFIG_SCHEMA, UserDefinedDagsterK8sConfig
from pydantic import ValidationError

from housing_assets import assets
from housing_assets.deployments import build_executor
from housing_assets.instance import instance_config
from housing_assets.settings import Settings
from housing_assets.snapshot_asset import K8S_TAG
from housing_serving.settings import ServingSettings

FOLDER = Path(__file__).parent.parent / "deploy" / "kubernetes"
KUBERNETES = "1.31"
VALUES = {
    "HOUSING_RUN_LAUNCHER": "k8s",
    "HOUSING_EXECUTOR": "k8s",
    "HOUSING_K8S_IMAGE": "europe-docker.pkg.dev/acme/housing/assets:1",
    "DAGSTER_POSTGRES_URL": "postgresql://dagster:secret@postgres/dagster",
}


def settings(**changes: str) -> Settings:
    return Settings.model_validate({**VALUES, **changes})


def manifests() -> dict[str, dict[str, Any]]:
    documents = yaml.safe_load_all((FOLDER / "api.yaml").read_text())
    return {document["kind"]: document for document in documents}


def chart_values() -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((FOLDER / "dagster-values.yaml").read_text())
    return values


@pytest.mark.parametrize("kind", list(manifests()))
def test_every_manifest_is_valid(kind: str) -> None:
    kubernetes_validate.validate(manifests()[kind], KUBERNETES, strict=True)


@pytest.mark.parametrize(
    ("kind", "place", "value"),
    [
        ("Deployment", ("spec", "selecter"), {}),
        ("Deployment", ("spec", "template", "spec", "containers", 0, "ports", 0, "containerPort"), "http"),
        ("PodDisruptionBudget", ("spec", "minAvailable"), [2]),
        ("HorizontalPodAutoscaler", ("spec", "maxReplicas"), "many"),
        ("NetworkPolicy", ("spec", "podSelector"), "housing-api"),
    ],
)
def test_a_planted_mistake_is_found(kind: str, place: tuple[str | int, ...], value: object) -> None:
    manifest: Any = manifests()[kind]
    target = manifest
    for step in place[:-1]:
        target = target[step]
    target[place[-1]] = value
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def test_everything_selects_the_pods_of_the_deployment() -> None:
    found = manifests()
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert found["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert found["Service"]["spec"]["selector"] == labels
    assert found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels
    target = found["HorizontalPodAutoscaler"]["spec"]
    assert target["scaleTargetRef"]["name"] == found["Deployment"]["metadata"]["name"]
    # A node can be drained, and two pods still answer.
    assert target["minReplicas"] > found["PodDisruptionBudget"]["spec"]["minAvailable"]
    pod = found["Deployment"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    environment = {one["name"]: one["value"] for one in container["env"]}
    assert {name.lower() for name in environment} <= set(ServingSettings.model_fields)
    drain = ServingSettings.model_validate({"housing_drain_seconds": environment["HOUSING_DRAIN_SECONDS"]})
    assert pod["terminationGracePeriodSeconds"] > drain.housing_drain_seconds + 10


def test_the_charts_daemon_works_as_the_written_instance_does() -> None:
    daemon, written = chart_values()["dagsterDaemon"], instance_config(settings())
    assert snake(daemon["runRetries"]) == written["run_retries"]
    assert (
        daemon["runMonitoring"]["pollIntervalSeconds"] == written["run_monitoring"]["poll_interval_seconds"]
    )
    limits = daemon["runCoordinator"]["config"]["queuedRunCoordinator"]["tagConcurrencyLimits"]
    ours = written["concurrency"]["runs"]["tag_concurrency_limits"]
    assert [(one["key"], one.get("value")) for one in limits] == [
        (one["key"], one.get("value")) for one in ours
    ]


def snake(values: dict[str, Any]) -> dict[str, Any]:
    """Keys as dagster.yaml spells them."""
    return {
        "".join(f"_{one.lower()}" if one.isupper() else one for one in key): value
        for key, value in values.items()
    }


def test_the_charts_run_config_is_what_the_launcher_takes() -> None:
    config = chart_values()["runLauncher"]["config"]["k8sRunLauncher"]["runK8sConfig"]
    found = process_config(USER_DEFINED_K8S_JOB_CONFIG_SCHEMA, snake(config))
    assert found.success, found.errors
    wrong = process_config(USER_DEFINED_K8S_JOB_CONFIG_SCHEMA, {"pod_config": {}})
    assert not wrong.success


def test_a_written_instance_launches_runs_as_jobs() -> None:
    config = instance_config(settings())
    found = process_config(K8sRunLauncher.config_type(), config["run_launcher"]["config"])
    assert found.success, found.errors
    launcher = config["run_launcher"]["config"]
    assert launcher["job_image"] == VALUES["HOUSING_K8S_IMAGE"]
    assert launcher["env_secrets"] == ["housing-env"]
    assert config["storage"] == {"postgres": {"postgres_url": {"env": "DAGSTER_POSTGRES_URL"}}}
    assert "secret@" not in yaml.safe_dump(config)


def test_steps_become_jobs_with_what_their_tags_ask_for() -> None:
    assert build_executor(settings()).name == "k8s"
    asked = {}
    for definition in dg.load_assets_from_package_module(assets):
        if isinstance(definition, dg.AssetsDefinition) and K8S_TAG in definition.op.tags:
            tag = UserDefinedDagsterK8sConfig.from_dict(yaml.safe_load(definition.op.tags[K8S_TAG]))
            resources = tag.container_config["resources"]
            asked |= {key.to_user_string(): resources["requests"]["memory"] for key in definition.keys}
    light = ("raw_housing", "processed_housing", "featured_housing", "train_set", "test_set")
    heavy = ("imputer", "preprocessing_pipeline", "model_selection", "sweep_result", "registered_model")
    assert asked == {**dict.fromkeys(light, "1Gi"), **dict.fromkeys(heavy, "4Gi")}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"HOUSING_K8S_IMAGE": None}, "HOUSING_K8S_IMAGE is not set"),
        ({"DAGSTER_POSTGRES_URL": None}, "DAGSTER_POSTGRES_URL is not set: pods share no SQLite file"),
        (
            {"HOUSING_RUN_LAUNCHER": "default"},
            "HOUSING_RUN_LAUNCHER is not k8s: steps in pods need runs in pods",
        ),
        ({"DAGSTER_POSTGRES_URL": "sqlite:///x"}, "set it to postgresql://user:password@host/name"),
    ],
)
def test_values_that_do_not_fit_are_refused(changes: dict[str, str], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        settings(**changes)
