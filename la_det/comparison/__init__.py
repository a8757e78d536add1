"""Trainings, measurements and reports of `tools/compare_schemes.py`: all schemes under one budget."""
