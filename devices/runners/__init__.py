"""Runners: one inference runtime each, behind `devices.runners.base.Runner`."""
