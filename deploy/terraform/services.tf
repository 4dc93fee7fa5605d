# MLflow and Dagster on Cloud Run. The prediction service is not here: a release makes it, with one revision for
# each model version, and would find its traffic changed by every `terraform apply`.
locals {
  environment = {
    GCP_PROJECT_ID            = var.project
    GCP_REGION                = var.region
    GCS_BUCKET_NAME           = google_storage_bucket.housing.name
    HOUSING_DEPLOYMENT        = "gcp"
    HOUSING_DEPLOYMENT_TARGET = "cloud_run"
    CLOUD_RUN_IMAGE           = "${local.images}/serving:${var.tag}"
    CLOUD_RUN_SERVICE_ACCOUNT = google_service_account.this["serving"].email
    HOUSING_SOURCE_URI        = var.source_uri
    # Of the containers of one instance.
    HOUSING_CODE_SERVER  = "localhost:4000"
    MLFLOW_TRACKING_AUTH = "google-id-token"
    MLFLOW_TRACKING_URI  = google_cloud_run_v2_service.mlflow.uri
  }
}

resource "google_cloud_run_v2_service" "mlflow" {
  name     = "housing-mlflow"
  location = var.region
  # IAM decides who may call; GitHub's workflows are among them.
  ingress             = "INGRESS_TRAFFIC_ALL"
  deletion_protection = false

  template {
    service_account = google_service_account.this["mlflow"].email

    scaling {
      max_instance_count = 1
    }

    vpc_access {
      egress = "PRIVATE_RANGES_ONLY"
      network_interfaces {
        network    = google_compute_network.housing.id
        subnetwork = google_compute_subnetwork.housing.id
      }
    }

    containers {
      image   = "${local.images}/assets:${var.tag}"
      command = ["housing"]
      args    = ["run", "mlflow"]

      ports {
        container_port = 5000
      }

      resources {
        limits = { cpu = "1", memory = "2Gi" }
      }

      dynamic "env" {
        for_each = {
          GCP_PROJECT_ID                     = var.project
          GCS_BUCKET_NAME                    = google_storage_bucket.housing.name
          HOUSING_DEPLOYMENT                 = "gcp"
          MLFLOW_TRACKING_URI                = "http://localhost:5000"
          MLFLOW_SERVER_ALLOWED_HOSTS        = "housing-mlflow-*.run.app,localhost:5000"
          MLFLOW_SERVER_ENABLE_JOB_EXECUTION = "false"
        }
        content {
          name  = env.key
          value = env.value
        }
      }

      env {
        name = "MLFLOW_BACKEND_STORE_URI"
        value_source {
          secret_key_ref {
            secret  = google_secret_manager_secret.database["mlflow"].secret_id
            version = "latest"
          }
        }
      }

      startup_probe {
        period_seconds    = 10
        failure_threshold = 18
        http_get {
          path = "/health"
          port = 5000
        }
      }
    }
  }

  depends_on = [google_secret_manager_secret_version.database, google_secret_manager_secret_iam_member.this]
}

# One instance, always: the daemon holds the schedules and sensors, and the code server the runs.
resource "google_cloud_run_v2_service" "dagster" {
  name                = "housing-dagster"
  location            = var.region
  ingress             = "INGRESS_TRAFFIC_ALL"
  deletion_protection = false

  template {
    service_account                  = google_service_account.this["dagster"].email
    timeout                          = "3600s"
    max_instance_request_concurrency = 200

    scaling {
      min_instance_count = 1
      max_instance_count = 1
    }

    vpc_access {
      egress = "PRIVATE_RANGES_ONLY"
      network_interfaces {
        network    = google_compute_network.housing.id
        subnetwork = google_compute_subnetwork.housing.id
      }
    }

    dynamic "containers" {
      for_each = {
        webserver = { port = 3000, cpu = "1", memory = "1Gi", after = ["code"] }
        daemon    = { port = 3001, cpu = "1", memory = "1Gi", after = ["code"] }
        code      = { port = 4000, cpu = "4", memory = "8Gi", after = [] }
      }
      content {
        name       = containers.key
        image      = "${local.images}/assets:${var.tag}"
        command    = ["housing"]
        args       = ["run", containers.key]
        depends_on = containers.value.after

        # Requests go to the one container with a port.
        dynamic "ports" {
          for_each = containers.key == "webserver" ? [containers.value.port] : []
          content {
            container_port = ports.value
          }
        }

        resources {
          limits = { cpu = containers.value.cpu, memory = containers.value.memory }
          # Runs go on while nobody asks for a page.
          cpu_idle = false
        }

        dynamic "env" {
          # Cloud Run itself sets PORT where requests go.
          for_each = merge(local.environment, containers.key == "webserver" ? {} : { PORT = tostring(containers.value.port) })
          content {
            name  = env.key
            value = env.value
          }
        }

        env {
          name = "DAGSTER_POSTGRES_URL"
          value_source {
            secret_key_ref {
              secret  = google_secret_manager_secret.database["dagster"].secret_id
              version = "latest"
            }
          }
        }

        dynamic "startup_probe" {
          for_each = containers.key == "daemon" ? [] : [containers.value.port]
          content {
            period_seconds    = 10
            failure_threshold = 18
            tcp_socket {
              port = startup_probe.value
            }
          }
        }
      }
    }
  }

  depends_on = [google_secret_manager_secret_version.database, google_secret_manager_secret_iam_member.this]
}

# A page a quarter of an hour, so that a broken Dagster shows as a failed job and not as silence.
resource "google_cloud_scheduler_job" "dagster_answers" {
  name      = "housing-dagster-answers"
  region    = var.region
  schedule  = "*/15 * * * *"
  time_zone = "Etc/UTC"

  http_target {
    http_method = "GET"
    uri         = "${google_cloud_run_v2_service.dagster.uri}/server_info"

    oidc_token {
      service_account_email = google_service_account.this["clock"].email
      audience              = google_cloud_run_v2_service.dagster.uri
    }
  }

  retry_config {
    retry_count = 2
  }

  depends_on = [google_project_service.this]
}
