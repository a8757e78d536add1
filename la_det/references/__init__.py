"""Readable definitions: the straightforward dense version of each rule, which tests and the benchmark compare with."""
