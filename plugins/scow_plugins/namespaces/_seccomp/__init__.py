"""Seccomp: `rules` as data, Docker's `default`, its JSON in `profile`, BPF from the `compiler`."""
