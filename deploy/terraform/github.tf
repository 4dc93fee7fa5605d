# GitHub's workflows sign in by Workload Identity federation: there is no key that could leak.
resource "google_iam_workload_identity_pool" "github" {
  workload_identity_pool_id = "github"
  display_name              = "GitHub"

  depends_on = [google_project_service.this]
}

resource "google_iam_workload_identity_pool_provider" "github" {
  workload_identity_pool_id          = google_iam_workload_identity_pool.github.workload_identity_pool_id
  workload_identity_pool_provider_id = "housing"
  display_name                       = "housing workflows"

  attribute_mapping = {
    "google.subject"        = "assertion.sub"
    "attribute.repository"  = "assertion.repository"
    "attribute.ref"         = "assertion.ref"
    "attribute.environment" = "assertion.repository + '/' + (has(assertion.environment) ? assertion.environment : '')"
    "attribute.branch"      = "assertion.repository + '@' + assertion.ref"
  }

  # Nobody but this repository of this owner, whoever may have its name later.
  attribute_condition = "assertion.repository == '${var.repository}' && assertion.repository_owner_id == '${var.repository_owner_id}'"

  oidc {
    issuer_uri = "https://token.actions.githubusercontent.com"
  }
}

locals {
  principals = "principalSet://iam.googleapis.com/${google_iam_workload_identity_pool.github.name}"
  # Workflows of the main branch push and train; only a job that the environment `production` lets through releases.
  github = {
    build   = "${local.principals}/attribute.branch/${var.repository}@refs/heads/main"
    train   = "${local.principals}/attribute.branch/${var.repository}@refs/heads/main"
    release = "${local.principals}/attribute.environment/${var.repository}/production"
  }
}

resource "google_service_account_iam_member" "github" {
  for_each = local.github

  service_account_id = google_service_account.this[each.key].name
  role               = "roles/iam.workloadIdentityUser"
  member             = each.value
}
