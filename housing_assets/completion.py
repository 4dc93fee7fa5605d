"""What the shell offers for snapshots and versions: only what is cheap to know, for it waits meanwhile."""

from datetime import UTC, datetime, timedelta

from pydantic import ValidationError

from housing_assets.settings import Deployment, Settings

OFFERED = 20


def complete_snapshot(incomplete: str) -> list[str]:
    """The newest snapshots: Sundays, the running week's first (the dates of `partitions.SNAPSHOTS`)."""
    today = datetime.now(UTC).date()
    newest = today - timedelta(days=today.isoweekday() % 7)
    sundays = (newest - timedelta(weeks=number) for number in range(OFFERED))
    return [day.isoformat() for day in sundays if day.isoformat().startswith(incomplete)]


def complete_version(incomplete: str) -> list[str]:
    """The versions whose bundles lie in the local storage root, the newest first."""
    try:
        settings = Settings.load()
    except ValidationError:
        return []
    if settings.deployment is not Deployment.LOCAL:
        return []
    folder = settings.home / "storage" / "models" / settings.mlflow_model_name
    versions = sorted((int(path.parent.name) for path in folder.glob("[1-9]*/bundle.json")), reverse=True)
    return [str(version) for version in versions if str(version).startswith(incomplete)]
