"""Alerts: one for each cause that monitoring finds, told once, closed when it is gone."""
