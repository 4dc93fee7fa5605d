"""What monitoring computes and promises: what was served, how it drifted, how it did. No Dagster."""
