"""benchctl: the referee for efficient video understanding.

The rooms and who may import whom are drawn in CONTRIBUTING.md; `tests/test_architecture.py` walks the imports.
"""

__version__ = "0.1.0"
