"""The runner (parent), the worker (child), and where a run came from."""
