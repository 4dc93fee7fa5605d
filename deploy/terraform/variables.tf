variable "project" {
  description = "The Google Cloud project."
  type        = string
}

variable "region" {
  description = "Where everything runs."
  type        = string
  default     = "us-central1"
}

variable "bucket" {
  description = "Name of the bucket for data, models and logs; unique in the world."
  type        = string
}

variable "repository" {
  description = "The GitHub repository whose workflows deploy, as owner/name."
  type        = string

  validation {
    condition     = can(regex("^[^/]+/[^/]+$", var.repository))
    error_message = "Give the repository as owner/name."
  }
}

variable "repository_owner_id" {
  description = "The number of the repository's owner: a name can be taken over, a number cannot. It is what https://api.github.com/users/OWNER says."
  type        = string
}

variable "tag" {
  description = "Tag of the images that Dagster and MLflow run; the commit they were built from."
  type        = string
}

variable "administrators" {
  description = "Who may open Dagster and MLflow, as members of IAM, such as group:ml@example.org."
  type        = list(string)
}

variable "source_uri" {
  description = "Where a weekly snapshot of the source rows is; may hold {snapshot}."
  type        = string
}

variable "database_tier" {
  description = "Size of the PostgreSQL server."
  type        = string
  default     = "db-g1-small"
}

variable "monthly_budget" {
  description = "Billing budget in the account's currency, of which half, nine tenths and all are told; 0 is none."
  type        = number
  default     = 0
}

variable "billing_account" {
  description = "The account to budget; needed with monthly_budget."
  type        = string
  default     = null
}
