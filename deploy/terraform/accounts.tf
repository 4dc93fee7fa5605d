# Who may do what: one service account for each thing that runs, with no more than it needs.
locals {
  accounts = {
    serving = "The prediction service: reads models, writes its prediction log."
    dagster = "Dagster: everything a training, a release and monitoring need."
    mlflow  = "The MLflow server: its artifacts in the bucket."
    build   = "GitHub: pushes images."
    release = "GitHub, let through by a reviewer: releases to Cloud Run."
    train   = "GitHub: trains and monitors where no Dagster runs."
    clock   = "Cloud Scheduler: asks Dagster to stay awake."
  }
  # Roles in the bucket: its objects, and for Dagster's logs the sight of the bucket itself.
  bucket_roles = merge(
    { for name in ["serving", "dagster", "mlflow", "train", "release"] :
    "${name} objects" => { account = name, role = "roles/storage.objectUser" } },
    { for name in ["dagster", "train", "release"] :
    "${name} bucket" => { account = name, role = "roles/storage.legacyBucketReader" } },
  )
  # Who reads which database secret.
  secret_readers = {
    dagster = google_secret_manager_secret.database["dagster"].id
    mlflow  = google_secret_manager_secret.database["mlflow"].id
  }
  # Who calls MLflow.
  mlflow_callers = ["dagster", "release", "train"]
  # Who makes revisions of the prediction service.
  releasers = ["dagster", "release"]
}

resource "google_service_account" "this" {
  for_each = local.accounts

  account_id   = "housing-${each.key}"
  description  = each.value
  display_name = "housing ${each.key}"
}

resource "google_storage_bucket_iam_member" "this" {
  for_each = local.bucket_roles

  bucket = google_storage_bucket.housing.name
  role   = each.value.role
  member = google_service_account.this[each.value.account].member
}

resource "google_secret_manager_secret_iam_member" "this" {
  for_each = local.secret_readers

  secret_id = each.value
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.this[each.key].member
}

resource "google_artifact_registry_repository_iam_member" "build" {
  repository = google_artifact_registry_repository.housing.name
  location   = var.region
  role       = "roles/artifactregistry.writer"
  member     = google_service_account.this["build"].member
}

# A release reads and makes services of this project, reads their metrics, and lets them run as `serving`.
resource "google_project_iam_member" "release" {
  for_each = {
    for pair in setproduct(local.releasers, ["roles/run.admin", "roles/run.invoker", "roles/monitoring.viewer"]) :
    "${pair[0]} ${pair[1]}" => { account = pair[0], role = pair[1] }
  }

  project = var.project
  role    = each.value.role
  member  = google_service_account.this[each.value.account].member
}

resource "google_service_account_iam_member" "release" {
  for_each = toset(local.releasers)

  service_account_id = google_service_account.this["serving"].name
  role               = "roles/iam.serviceAccountUser"
  member             = google_service_account.this[each.value].member
}

# Workflows have no key to make ID tokens with: they ask for their own, for MLflow and for a new revision.
resource "google_service_account_iam_member" "own_token" {
  for_each = toset(["release", "train"])

  service_account_id = google_service_account.this[each.value].name
  role               = "roles/iam.serviceAccountOpenIdTokenCreator"
  member             = google_service_account.this[each.value].member
}

resource "google_cloud_run_v2_service_iam_member" "mlflow" {
  for_each = merge(
    { for name in local.mlflow_callers : name => google_service_account.this[name].member },
    { for member in var.administrators : member => member },
  )

  name     = google_cloud_run_v2_service.mlflow.name
  location = var.region
  role     = "roles/run.invoker"
  member   = each.value
}

resource "google_cloud_run_v2_service_iam_member" "dagster" {
  for_each = merge(
    { clock = google_service_account.this["clock"].member },
    { for member in var.administrators : member => member },
  )

  name     = google_cloud_run_v2_service.dagster.name
  location = var.region
  role     = "roles/run.invoker"
  member   = each.value
}
