"""Putting right what a killed process left half-done between target and registry."""

from collections.abc import Callable

from housing_assets.deployment.aliases import align_aliases
from housing_assets.deployment.target import DeploymentTarget
from housing_assets.registry import ModelRegistry
from housing_serving.releases import change


def mend(
    target: DeploymentTarget, models: ModelRegistry, is_over: Callable[[str | None], bool], by: str
) -> list[str]:
    """End a trial that nobody watches any more, and let the aliases follow; returns what was done.

    Args:
        target: Where the model is served.
        models: Whose aliases are to follow.
        is_over: Whether the owner of a trial has ended for good.
        by: Who is named in the history.
    """
    status = target.status()
    done = []
    if status.canary is not None and is_over(status.canary_owner):
        reason = f"the run that watched it ({status.canary_owner}) has ended without a decision"
        target.abort_canary(status.canary, change=change("abort", status.canary, by, reason))
        done.append(f"ended the trial of version {status.canary}: {reason}")
    if status.stable is not None:
        done += align_aliases(models, status.stable, status.previous)
    return done
