"""Tests of what the product is shipped with: images, Compose file, workflows, infrastructure."""
