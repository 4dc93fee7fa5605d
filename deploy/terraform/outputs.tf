# The variables that the workflows read: gh variable set NAME --body "$(terraform output -raw NAME)"
output "CLOUD_RUN_SERVICE_ACCOUNT" {
  value = google_service_account.this["serving"].email
}

output "GCP_BUILD_SERVICE_ACCOUNT" {
  value = google_service_account.this["build"].email
}

output "GCP_PROJECT_ID" {
  value = var.project
}

output "GCP_REGION" {
  value = var.region
}

output "GCP_RELEASE_SERVICE_ACCOUNT" {
  value = google_service_account.this["release"].email
}

output "GCP_TRAIN_SERVICE_ACCOUNT" {
  value = google_service_account.this["train"].email
}

output "GCP_WORKLOAD_IDENTITY_PROVIDER" {
  value = google_iam_workload_identity_pool_provider.github.name
}

output "GCS_BUCKET_NAME" {
  value = google_storage_bucket.housing.name
}

output "HOUSING_SOURCE_URI" {
  value = var.source_uri
}

output "MLFLOW_TRACKING_URI" {
  value = google_cloud_run_v2_service.mlflow.uri
}
