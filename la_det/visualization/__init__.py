"""Pictures and pages for looking at label assignment."""
