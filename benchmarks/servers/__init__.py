"""The servers that the service is compared with: `python -m benchmarks.servers.<name> PORT ...`."""
