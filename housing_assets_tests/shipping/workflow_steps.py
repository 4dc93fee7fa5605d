"""Runs the steps of a GitHub workflow's job here, as a runner would: they are parsed, not repeated."""

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from housing_assets_tests.shipping.make import REPOSITORY

_EXPRESSION = re.compile(r"\$\{\{\s*(.+?)\s*\}\}")


@dataclass
class Step:
    """What came of a step: success, failure or skipped; what it printed; its outputs."""

    outcome: str
    printed: str = ""
    outputs: dict[str, str] = field(default_factory=dict)


def run_job(
    workflow: str, job: str, contexts: Mapping[str, str], environment: Mapping[str, str], folder: Path
) -> dict[str, Step]:
    """Run a job's commands; actions succeed, with the outputs that `contexts` has for them.

    Args:
        workflow: the file's name.
        job: its key.
        contexts: values of expressions, such as `vars.GCP_REGION` and `steps.mlflow.outputs.id_token`.
        environment: the runner's variables.
        folder: for files of the runner.

    Returns:
        Steps by id, or else by name or command.
    """
    text = (REPOSITORY / ".github" / "workflows" / workflow).read_text()
    told: dict[str, Any] = yaml.safe_load(text)["jobs"][job]
    done: dict[str, Step] = {}
    for number, step in enumerate(told["steps"]):
        key = step.get("id") or step.get("name") or step.get("run") or step["uses"]
        failed = any(earlier.outcome == "failure" for earlier in done.values())
        if not _is_due(step.get("if", "success()"), done, failed):
            done[key] = Step("skipped")
        elif "uses" in step:
            done[key] = Step("success")
        else:
            variables = {**told.get("env", {}), **step.get("env", {})}
            resolved = {name: _resolved(str(value), contexts) for name, value in variables.items()}
            output = folder / f"output-{number}"
            output.touch()
            done[key] = _run(step["run"], {**environment, **resolved, "GITHUB_OUTPUT": str(output)}, output)
    return done


def _run(command: str, environment: Mapping[str, str], output: Path) -> Step:
    ran = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", command],
        cwd=REPOSITORY,
        env=dict(environment),
        capture_output=True,
        text=True,
        check=False,
    )
    outputs = dict(line.split("=", 1) for line in output.read_text().splitlines())
    return Step("failure" if ran.returncode else "success", ran.stdout + ran.stderr, outputs)


def _resolved(text: str, contexts: Mapping[str, str]) -> str:
    return _EXPRESSION.sub(lambda found: contexts[found[1]], text)


def _is_due(condition: str, done: Mapping[str, Step], failed: bool) -> bool:
    """Whether a condition of the few forms that the workflows use holds."""
    for part in condition.split("&&"):
        found = re.fullmatch(r"steps\.(\w+)\.(outcome|outputs\.(\w+)) == '(\w+)'", part.strip())
        if found:
            step = done[found[1]]
            value = step.outputs.get(found[3], "") if found[3] else step.outcome
            holds = value == found[4]
        else:
            holds = {"failure()": failed, "success()": not failed}[part.strip()]
        if not holds:
            return False
    return True
