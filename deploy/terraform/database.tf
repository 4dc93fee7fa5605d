# One PostgreSQL server for Dagster's records and MLflow's, reachable from the project's network alone.
resource "google_compute_network" "housing" {
  name                    = "housing"
  auto_create_subnetworks = false

  depends_on = [google_project_service.this]
}

resource "google_compute_subnetwork" "housing" {
  name                     = "housing"
  region                   = var.region
  network                  = google_compute_network.housing.id
  ip_cidr_range            = "10.10.0.0/24"
  private_ip_google_access = true
}

resource "google_compute_global_address" "database" {
  name          = "housing-database"
  purpose       = "VPC_PEERING"
  address_type  = "INTERNAL"
  prefix_length = 20
  network       = google_compute_network.housing.id
}

resource "google_service_networking_connection" "database" {
  network                 = google_compute_network.housing.id
  service                 = "servicenetworking.googleapis.com"
  reserved_peering_ranges = [google_compute_global_address.database.name]
}

resource "google_sql_database_instance" "housing" {
  name                = "housing"
  region              = var.region
  database_version    = "POSTGRES_17"
  deletion_protection = true

  settings {
    tier              = var.database_tier
    edition           = "ENTERPRISE"
    availability_type = "ZONAL"
    disk_autoresize   = true

    backup_configuration {
      enabled                        = true
      point_in_time_recovery_enabled = true
    }

    ip_configuration {
      ipv4_enabled    = false
      private_network = google_compute_network.housing.id
      ssl_mode        = "ENCRYPTED_ONLY"
    }
  }

  depends_on = [google_service_networking_connection.database]
}

resource "google_sql_database" "this" {
  for_each = toset(["dagster", "mlflow"])

  name     = each.value
  instance = google_sql_database_instance.housing.name
}

# One user each, so that neither part can read the other's records.
resource "random_password" "database" {
  for_each = google_sql_database.this

  length  = 40
  special = false
}

resource "google_sql_user" "this" {
  for_each = google_sql_database.this

  name     = each.key
  instance = google_sql_database_instance.housing.name
  password = random_password.database[each.key].result
}

locals {
  database_urls = {
    for name, database in google_sql_database.this :
    name => "postgresql://${google_sql_user.this[name].name}:${random_password.database[name].result}@${google_sql_database_instance.housing.private_ip_address}:5432/${database.name}?sslmode=require"
  }
}

resource "google_secret_manager_secret" "database" {
  for_each = {
    dagster = "dagster-postgres-url"
    mlflow  = "mlflow-backend-store-uri"
  }

  secret_id = each.value

  replication {
    auto {}
  }

  depends_on = [google_project_service.this]
}

resource "google_secret_manager_secret_version" "database" {
  for_each = google_secret_manager_secret.database

  secret      = each.value.id
  secret_data = local.database_urls[each.key]
}
