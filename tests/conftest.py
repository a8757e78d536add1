"""Settings of all tests."""

import os

from hypothesis import settings

# Under CI the same examples every time: a new counterexample is for whoever runs the tests, not for whoever comes next.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")
