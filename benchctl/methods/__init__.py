"""One file per benchmarked system; see `benchctl.lookup` for how a file registers itself."""
