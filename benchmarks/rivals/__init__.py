"""The programs that rival servers run, each in an environment of its own: see `bench_rivals`."""
