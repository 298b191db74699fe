"""A fuzzer for everything that strangers send: see CONTRIBUTING.md, "Fuzzing"."""
