"""Arithmetic and contracts of monitoring: what was served, how far it drifted, how well it did. No Dagster."""
