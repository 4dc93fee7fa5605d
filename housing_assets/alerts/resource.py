"""The resource by which sensors reach the alert book and the channels."""

from datetime import datetime

import dagster as dg

from housing_assets.alerts.channels import ChannelValues, SmtpSecurity, open_channels
from housing_assets.alerts.watch import Look, watch
from housing_assets.resources import StorageResource


class AlertsResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Who is told of alerts, by value; the log is always told."""

    storage: dg.ResourceDependency[StorageResource]
    webhook_url: str | None = None
    email_to: str | None = None
    email_from: str | None = None
    smtp_host: str | None = None
    smtp_port: int = ChannelValues.smtp_port
    smtp_security: str = ChannelValues.smtp_security
    smtp_username: str | None = None
    smtp_password: str | None = None
    wandb: bool = False
    wandb_project: str = ""
    wandb_entity: str | None = None
    wandb_folder: str = ""

    def watch(self, now: datetime) -> Look:
        """One look at the newest reports."""
        return watch(self.storage.store(), open_channels(self.values), now)

    @property
    def values(self) -> ChannelValues:
        """The values of the channels."""
        security: dict[str, SmtpSecurity] = {"starttls": "starttls", "tls": "tls", "plain": "plain"}
        return ChannelValues(
            webhook_url=self.webhook_url,
            email_to=self.email_to,
            email_from=self.email_from,
            smtp_host=self.smtp_host,
            smtp_port=self.smtp_port,
            smtp_security=security[self.smtp_security],
            smtp_username=self.smtp_username,
            smtp_password=self.smtp_password,
            wandb=self.wandb,
            wandb_project=self.wandb_project,
            wandb_entity=self.wandb_entity,
            wandb_folder=self.wandb_folder,
        )
