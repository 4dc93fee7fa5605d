"""What the failures of Google's clients mean for a deployment, and what to do about them."""

from collections.abc import Iterator
from contextlib import contextmanager

import requests
from google.api_core import exceptions as api
from google.auth.exceptions import GoogleAuthError, TransportError

from housing_assets.deployment.cloud_run_settings import CloudRunSettings
from housing_assets.deployment.target import DeploymentConflict, DeploymentError, TargetUnavailable

DEPLOYER = "roles/run.developer"
NO_CREDENTIALS = (
    "run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS to a key file"
)
# Worth another try: nothing was done, or an etag shows what a lost answer has done.
PASSING = (
    api.TooManyRequests,
    api.InternalServerError,
    api.BadGateway,
    api.ServiceUnavailable,
    api.GatewayTimeout,
    requests.ConnectionError,
    requests.Timeout,
    TransportError,
)


class OperationFailed(DeploymentError):
    """Cloud Run took a change on and could not carry it out."""


@contextmanager
def explained(settings: CloudRunSettings, doing: str, role: str = DEPLOYER) -> Iterator[None]:
    """Turn a failure of Google's client into one that says what to do; `role` is what doing this takes.

    Raises:
        DeploymentConflict: somebody else was first.
        TargetUnavailable: a quota or an outage, after all retries.
        DeploymentError: anything else.
    """
    what = f"cannot {doing} {settings.service_path}"
    try:
        yield
    except (api.Conflict, api.PreconditionFailed) as error:
        raise DeploymentConflict(
            f"{what}: somebody else changed it at the same time ({error.message}): look at "
            "`housing release status`, then try again if you still want to"
        ) from error
    except api.Forbidden as error:
        raise DeploymentError(f"{what}: {_permission(settings, error, role)}") from error
    except api.NotFound as error:
        raise DeploymentError(
            f"{what}: {error.message}: check GCP_PROJECT_ID, GCP_REGION and CLOUD_RUN_SERVICE"
        ) from error
    except (api.RetryError, *PASSING) as error:
        raise TargetUnavailable(f"{what}: {_outage(settings, error)}") from error
    except (GoogleAuthError, api.Unauthorized) as error:
        raise DeploymentError(f"{what}: {error}: {NO_CREDENTIALS}") from error
    except api.GoogleAPICallError as error:
        raise DeploymentError(f"{what}: {error.message}") from error


def _permission(settings: CloudRunSettings, error: api.Forbidden, role: str) -> str:
    if "SERVICE_DISABLED" in str(error.details) or "it is disabled" in error.message:
        return f"run `gcloud services enable run.googleapis.com --project {settings.project}` first"
    account = settings.service_account or "the default service account"
    return (
        f"{error.message}: grant whoever deploys {role} in {settings.project}, and "
        f"roles/iam.serviceAccountUser on {account}"
    )


def _outage(settings: CloudRunSettings, error: Exception) -> str:
    cause = error.cause if isinstance(error, api.RetryError) else error
    if isinstance(cause, api.TooManyRequests):
        return (
            f"the quota of {settings.project} is used up, {settings.retry_seconds:g} s of retries did not "
            f"help ({cause.message}): try later, or raise it in the console under IAM & Admin, Quotas"
        )
    return f"Cloud Run does not answer ({cause}): try later"
