"""Readable definitions, which tests and benchmarks compare with.

Most modules have the straightforward dense version of label-assignment rules: functions `rule(matcher, image)`, see
`image`. `crowdhuman` has the straightforward version of CrowdHuman's evaluation. `scene` makes the random scenes of the
tests.
"""
