"""The values of a Cloud Run deployment."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

# As `gcloud run deploy --ingress` spells them.
Ingress = Literal["internal", "internal-and-cloud-load-balancing", "all"]


class CloudRunSettings(BaseModel):
    """Which service is deployed, and what its revisions are made of. The defaults make nothing public.

    Attributes:
        project: The Google Cloud project.
        region: Where the service runs.
        bucket: The bucket the model bundles are in, without gs://.
        image: The container image of the prediction service.
        service: The Cloud Run service's name.
        model_name: The registered model's name.
        service_account: Whom the revisions run as; None is the project's default service account.
        ingress: From which networks requests are let in.
        invokers: Who gets roles/run.invoker ("serviceAccount:web@project.iam.gserviceaccount.com"); bindings
            that others have made stay as they are.
        min_instances: Kept warm, of all revisions together.
        max_instances: At most, of one revision.
        cpu: Of an instance.
        memory: Of an instance.
        ready_seconds: How long a revision may take to become ready.
        smoke_seconds: How long a ready revision may take to answer by its tag URL.
        retry_seconds: How long quota errors and outages of the Admin API are waited out.
        metrics_seconds: Cloud Monitoring is not asked more often than this.
        api_endpoint: Another address of the Admin API; one with http:// is asked without credentials.
        monitoring_endpoint: Another address of the Monitoring API.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    project: Annotated[str, Field(min_length=1)]
    region: Annotated[str, Field(min_length=1)]
    bucket: Annotated[str, Field(min_length=1)]
    image: Annotated[str, Field(min_length=1)]
    service: Annotated[str, Field(pattern=r"^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$")] = "housing-price-api"
    model_name: str = "housing_price_model"
    service_account: str | None = None
    ingress: Ingress = "internal"
    invokers: tuple[str, ...] = ()
    min_instances: Annotated[int, Field(ge=0)] = 0
    max_instances: Annotated[int, Field(ge=1)] = 10
    cpu: str = "1"
    memory: str = "1Gi"
    ready_seconds: Annotated[float, Field(gt=0)] = 300.0
    smoke_seconds: Annotated[float, Field(gt=0)] = 60.0
    retry_seconds: Annotated[float, Field(gt=0)] = 60.0
    metrics_seconds: Annotated[float, Field(ge=0)] = 10.0
    api_endpoint: str | None = None
    monitoring_endpoint: str = "https://monitoring.googleapis.com"

    @property
    def parent(self) -> str:
        """Project and region, as the Admin API names them."""
        return f"projects/{self.project}/locations/{self.region}"

    @property
    def service_path(self) -> str:
        """The service's full name."""
        return f"{self.parent}/services/{self.service}"

    @property
    def anonymous(self) -> bool:
        """Whether a local stand-in is asked, which knows no credentials."""
        return (self.api_endpoint or "").startswith("http://")
