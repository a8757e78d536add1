"""What the schemes share, by the three steps of an assignment: candidates, score, select (docs/design.md)."""
