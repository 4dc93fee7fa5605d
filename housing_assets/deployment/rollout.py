"""A deployment from its first check to the last process that serves the new version.

Whatever ends it early leaves what served before; started again after a crash, it goes on where it was.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import tenacity

from housing_assets.deployment.canary import CanaryRules, judge
from housing_assets.deployment.target import (
    DeploymentConflict,
    DeploymentError,
    DeploymentTarget,
    Reading,
    TargetStatus,
    TargetUnavailable,
    named,
)
from housing_serving.releases import change

LOOK_SECONDS = 0.5
# How long the processes may take to follow, before the deployment ends without waiting for them.
CONVERGE_SECONDS = 30.0


class CanaryRejected(DeploymentError):
    """The canary did not do well and is gone; the message says why."""


@dataclass(frozen=True)
class Rollout:
    """One version on its way into service.

    Attributes:
        target: Where it is to serve.
        version: Which one.
        judged_against: The version it has beaten; None when there was none.
        owner: Who deploys it, the same again after a crash.
        by: Who is named in the history.
        rules: What its canary must show.
        say: Called with what happens, for people.
    """

    target: DeploymentTarget
    version: int
    judged_against: int | None
    owner: str
    by: str
    rules: CanaryRules = field(default_factory=CanaryRules)
    say: Callable[[str], None] = lambda _: None

    def run(self) -> TargetStatus:
        """Try the version out and promote it; returns what the target then says.

        A version that serves already is at most renewed, as by another image, where the target can do that.

        Raises:
            CanaryRejected: it did not do well.
            DeploymentConflict: another version serves, or is tried out, than this one was judged against.
            DeploymentError: the target cannot do it.
        """
        status = self.target.status()
        if status.stable == self.version and status.canary is None:
            self.say(f"version {self.version} serves already")
            self._promote(status.stable, None, "the values of the deployment have changed")
            return self.converged()
        self._refuse_stale(status)
        if status.stable is None:
            reason = "the first release: there is nothing to compare it with"
        else:
            reason = self._tried_out(status.stable)
        self._promote(status.stable, self.owner, reason)
        self.say(f"version {self.version} is promoted: {reason}")
        return self.converged()

    def _promote(self, stable: int | None, owner: str | None, reason: str) -> None:
        step = change("promote", self.version, self.by, reason)
        self.target.promote(self.version, stable=stable, owner=owner, change=step)

    def converged(self) -> TargetStatus:
        """The target's status, once every process that can be asked serves the version."""
        waiting = tenacity.Retrying(
            stop=tenacity.stop_after_delay(CONVERGE_SECONDS),
            wait=tenacity.wait_fixed(LOOK_SECONDS),
            retry=tenacity.retry_if_result(lambda status: not set(status.serving) <= {self.version}),
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
        )
        status: TargetStatus = waiting(self.target.status)
        self.say(f"serving now: {serving_text(status)}")
        return status

    def _refuse_stale(self, status: TargetStatus) -> None:
        resumes = status.canary == self.version and status.canary_owner == self.owner
        if not resumes and status.stable != self.judged_against:
            raise DeploymentConflict(
                f"version {self.version} was judged against "
                f"{named(self.judged_against)}, but {named(status.stable)} serves by now: materialize "
                "registered_model again, or use `housing release promote` if you know better"
            )

    def _tried_out(self, stable: int) -> str:
        """Watch the canary until it has shown itself; returns what speaks for it."""
        share = f"{self.rules.percent:g} % of the requests"
        self.target.start_canary(
            self.version,
            self.rules.percent,
            stable=stable,
            owner=self.owner,
            change=change(
                "canary",
                self.version,
                self.by,
                f"{share}, watched for {self.rules.window_seconds:g} s or more",
            ),
        )
        self.say(f"version {self.version} gets {share}")
        try:
            return self._watched()
        except BaseException as error:
            # A stopped run, too, leaves the stable version alone.
            self.target.abort_canary(
                self.version,
                change=change("abort", self.version, self.by, str(error) or type(error).__name__),
            )
            raise

    def _watched(self) -> str:
        start = self._reading()
        began = time.monotonic()
        said = 0.0
        before = "watch"
        while True:
            time.sleep(LOOK_SECONDS)
            seconds = time.monotonic() - began
            verdict = judge(start, self._reading(), seconds, self.rules)
            # Numbers can be read in the midst of an update, when a sum holds a batch that its counts still
            # lack: what one reading says has to be said by the next one too.
            confirmed, before = verdict.action == before, verdict.action
            if verdict.action == "promote" and confirmed:
                return verdict.reason
            if verdict.action == "abort" and confirmed:
                raise CanaryRejected(f"version {self.version} is not promoted: {verdict.reason}")
            if seconds - said >= self.rules.window_seconds / 5:
                said = seconds
                self.say(f"canary version {self.version}: {verdict.reason}")

    def _reading(self) -> Reading:
        """What the metrics say, as soon as there are any."""
        asking = tenacity.Retrying(
            stop=tenacity.stop_after_delay(self.rules.window_seconds),
            wait=tenacity.wait_fixed(LOOK_SECONDS),
            retry=tenacity.retry_if_exception_type(TargetUnavailable),
            reraise=True,
        )
        return asking(self.target.read)


def serving_text(status: TargetStatus) -> str:
    """Who serves what, for people."""
    if not status.serving:
        return "no process could be asked"
    parts = [f"version {version} in {count:g}" for version, count in sorted(status.serving.items())]
    return ", ".join(parts)
