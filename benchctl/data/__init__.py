"""Decoding, sampling, transforms; one file per data-set family."""
