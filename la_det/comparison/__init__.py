"""All schemes under one budget: what `tools/compare_schemes.py` trains, measures and reports."""
