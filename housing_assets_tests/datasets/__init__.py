"""Tests of tables in parts."""
