"""Accuracy, calibration, intervals, tables and figures."""
