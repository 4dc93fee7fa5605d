"""What a person does with a release: promote a version, or go back. The command line and the UI share it."""

import getpass
import socket

from housing_assets.deployment.target import DeploymentError, DeploymentTarget, trial_goes_on
from housing_serving.releases import change


def promote(target: DeploymentTarget, version: int, by: str, reason: str) -> str:
    """Let a version serve at once, without a trial; returns what was done.

    Raises:
        DeploymentError: the target cannot do it, or a version is being tried out.
    """
    status = target.status()
    if status.canary is not None:
        raise trial_goes_on(status.canary, status.canary_owner)
    if status.stable == version:
        return f"version {version} serves already"
    target.promote(version, stable=status.stable, owner=None, change=change("promote", version, by, reason))
    return f"version {version} is released"


def roll_back(target: DeploymentTarget, by: str, reason: str) -> str:
    """Undo the latest step: end a trial, or let the version before serve again; returns what was done.

    Raises:
        DeploymentError: there is nothing to go back to.
    """
    status = target.status()
    if status.canary is not None:
        target.abort_canary(status.canary, change=change("abort", status.canary, by, reason))
        return f"the trial of version {status.canary} is ended, version {status.stable} serves"
    if status.stable is None:
        raise DeploymentError("nothing was released yet")
    if status.previous is None:
        raise DeploymentError(
            f"version {status.stable} is the first that was released: there is none to go back to"
        )
    step = change("rollback", status.previous, by, reason)
    version = target.roll_back(stable=status.stable, change=step)
    return f"version {version} is released again, version {status.stable} is not any more"


def this_person() -> str:
    """Who runs this program, for the history."""
    return f"{getpass.getuser()}@{socket.gethostname()}"
