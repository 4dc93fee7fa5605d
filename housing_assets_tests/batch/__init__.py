"""Tests of pricing tables, and of `housing predict`."""
