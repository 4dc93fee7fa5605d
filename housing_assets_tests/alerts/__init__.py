"""Tests of alerts: rules, channels, delivery, command."""
