"""Trainings, measurements and reports of `la-det compare`: all schemes under one budget."""
