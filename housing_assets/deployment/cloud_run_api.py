"""What a deployment needs of Cloud Run's Admin API: waited for, retried, with errors that say what to do.

Google's client takes half a second to import, so this module is imported when Cloud Run is the target.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import TimeoutError as WaitedTooLong
from typing import Any

import google.auth
import tenacity
from google.api_core import exceptions as api
from google.api_core.client_options import ClientOptions
from google.api_core.future.polling import DEFAULT_POLLING
from google.api_core.retry import Retry, if_exception_type
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import GoogleAuthError
from google.cloud import run_v2
from google.iam.v1 import iam_policy_pb2, options_pb2
from google.protobuf import field_mask_pb2

from housing_assets.deployment.cloud_run_errors import NO_CREDENTIALS, PASSING, OperationFailed, explained
from housing_assets.deployment.cloud_run_service import (
    RECORD_ANNOTATION,
    Deployed,
    Route,
    apply_settings,
    deployed,
    short_name,
    template,
    traffic,
)
from housing_assets.deployment.cloud_run_settings import CloudRunSettings
from housing_assets.deployment.target import DeploymentConflict, DeploymentError
from housing_serving.releases import ReleaseRecord

SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
INVOKER = "roles/run.invoker"
IAM_ATTEMPTS = 5


class CloudRunApi:
    """One service, its revisions, and who may call it."""

    def __init__(self, settings: CloudRunSettings) -> None:
        self._settings = settings
        options = ClientOptions(api_endpoint=settings.api_endpoint) if settings.api_endpoint else None
        arguments = {"transport": "rest", "credentials": credentials(settings), "client_options": options}
        self._services = run_v2.ServicesClient(**arguments)
        self._revisions = run_v2.RevisionsClient(**arguments)
        self._retry = Retry(
            predicate=if_exception_type(*PASSING),
            initial=0.25,
            maximum=8.0,
            multiplier=2.0,
            timeout=settings.retry_seconds,
        )
        self._polling = DEFAULT_POLLING.with_delay(0.25, 5.0, 1.5).with_timeout(settings.ready_seconds)

    def read(self) -> Deployed | None:
        """The service; None when there is none."""
        with explained(self._settings, "read"):
            try:
                found = self._services.get_service(name=self._settings.service_path, retry=self._retry)
            except api.NotFound:
                return None
        return deployed(found)

    def create(self, version: int, revision: str, route: Route) -> None:
        """Make the service, with a version's revision as its first, and wait until it is there.

        Raises:
            DeploymentConflict: there is one already.
            OperationFailed: it did not become ready.
        """
        service = run_v2.Service(
            template=template(self._settings, version, revision), traffic=traffic([route])
        )
        apply_settings(service, self._settings)
        request = run_v2.CreateServiceRequest(
            parent=self._settings.parent, service_id=self._settings.service, service=service
        )
        self._carry_out(lambda: self._services.create_service(request, retry=self._retry))

    def update(
        self,
        seen: Deployed,
        routes: Iterable[Route],
        record: ReleaseRecord | None,
        revision: tuple[int, str] | None = None,
    ) -> None:
        """Change traffic and record at once, and make a new revision (of a version, with a name) if asked to.

        Raises:
            DeploymentConflict: the service is another than the one seen.
            OperationFailed: Cloud Run could not carry it out.
        """
        # The whole service is sent back, so that what is not named below stays in any case.
        service = run_v2.Service(seen.service)
        fields = ["traffic", "annotations"]
        service.traffic = traffic(routes)
        if record is None:
            service.annotations.pop(RECORD_ANNOTATION, None)
        else:
            service.annotations[RECORD_ANNOTATION] = record.model_dump_json()
        if revision is not None:
            service.template = template(self._settings, *revision)
            fields += ["template", *apply_settings(service, self._settings)]
        request = run_v2.UpdateServiceRequest(
            service=service, update_mask=field_mask_pb2.FieldMask(paths=fields)
        )
        self._carry_out(lambda: self._services.update_service(request, retry=self._retry))

    def settled(self) -> Deployed | None:
        """The service, once Cloud Run is not busy with it any more; as it is, when that takes too long."""
        waiting = tenacity.Retrying(
            stop=tenacity.stop_after_delay(self._settings.ready_seconds),
            wait=tenacity.wait_exponential(0.25, max=5.0),
            retry=tenacity.retry_if_result(lambda found: found is not None and found.service.reconciling),
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
        )
        found: Deployed | None = waiting(self.read)
        return found

    def revisions(self) -> list[tuple[str, Mapping[str, str], bool]]:
        """Name and labels of every revision, the newest first, and whether it has failed."""
        with explained(self._settings, "list the revisions of"):
            found = self._revisions.list_revisions(parent=self._settings.service_path, retry=self._retry)
            newest = sorted(found, key=lambda item: item.create_time, reverse=True)
        return [(short_name(item.name), dict(item.labels), _ready(item) is False) for item in newest]

    def wait_until_ready(self, revision: str, until: float) -> None:
        """Wait for a revision until a moment of the monotonic clock.

        Raises:
            DeploymentError: it is not ready; the message holds what Cloud Run says about it.
        """
        name = f"{self._settings.service_path}/revisions/{revision}"
        waiting = tenacity.Retrying(
            stop=tenacity.stop_after_delay(max(until - time.monotonic(), 0.0)),
            wait=tenacity.wait_exponential(0.25, max=5.0),
            retry=tenacity.retry_if_result(lambda found: _ready(found) is None),
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
        )
        with explained(self._settings, "read a revision of"):
            found = waiting(self._revisions.get_revision, name=name, retry=self._retry)
        if not _ready(found):
            said = "; ".join(condition.message for condition in found.conditions if condition.message)
            raise DeploymentError(
                f"revision {revision} did not become ready: {said or 'Cloud Run does not say why'}. Traffic "
                "is as it was; the revision's logs say more"
            )

    def let_invoke(self, members: Iterable[str]) -> None:
        """Make sure that these members may call the service; who else may is left alone.

        Raises:
            DeploymentConflict: the policy is changed by somebody else, again and again.
        """
        for attempt in range(IAM_ATTEMPTS):
            try:
                with explained(self._settings, "change who may call", "roles/run.admin"):
                    return self._bind(members)
            except DeploymentConflict:
                if attempt == IAM_ATTEMPTS - 1:
                    raise
        return None

    def _bind(self, members: Iterable[str]) -> None:
        path = self._settings.service_path
        # Version 3 shows bindings with conditions, which an older policy would lose when written back.
        options = options_pb2.GetPolicyOptions(requested_policy_version=3)
        asked = iam_policy_pb2.GetIamPolicyRequest(resource=path, options=options)
        policy = self._services.get_iam_policy(asked, retry=self._retry)
        bindings = [
            item for item in policy.bindings if item.role == INVOKER and not item.condition.expression
        ]
        missing = sorted(set(members) - {member for item in bindings for member in item.members})
        if missing:
            binding = bindings[0] if bindings else policy.bindings.add(role=INVOKER)
            binding.members.extend(missing)
            wanted = iam_policy_pb2.SetIamPolicyRequest(resource=path, policy=policy)
            self._services.set_iam_policy(wanted, retry=self._retry)

    def _carry_out(self, start: Callable[[], Any]) -> None:
        limit = self._settings.ready_seconds
        with explained(self._settings, "change"):
            operation = start()
            try:
                operation.result(retry=self._retry.with_timeout(limit), polling=self._polling)
            except WaitedTooLong as error:
                raise OperationFailed(f"Cloud Run did not carry out a change within {limit:g} s") from error
            except api.GoogleAPICallError as error:
                if not operation.operation.done:
                    raise  # asking about it failed
                raise OperationFailed(f"Cloud Run could not carry out a change: {error.message}") from error


def credentials(settings: CloudRunSettings) -> Any:  # noqa: ANN401  (Google's types are not checked)
    """Those of the environment; anonymous ones for a stand-in.

    Raises:
        DeploymentError: there are none.
    """
    if settings.anonymous:
        return AnonymousCredentials()
    try:
        found, _ = google.auth.default(scopes=SCOPES)
    except GoogleAuthError as error:
        raise DeploymentError(f"no Google Cloud credentials: {NO_CREDENTIALS}") from error
    return found


def _ready(revision: Any) -> bool | None:  # noqa: ANN401  (Google's type)
    """Whether a revision is ready; None while nobody knows."""
    states = {condition.type_: condition.state.name for condition in revision.conditions}
    return {"CONDITION_SUCCEEDED": True, "CONDITION_FAILED": False}.get(states.get("Ready", ""))
