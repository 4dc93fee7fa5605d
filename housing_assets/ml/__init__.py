"""Pure machine-learning code: frames and arrays in, values out. No orchestrator, no cloud client."""
