"""igos-bench: deletion and insertion benchmarks of saliency maps."""

__version__ = "0.1.0"
