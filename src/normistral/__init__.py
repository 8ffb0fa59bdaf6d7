"""normistral: turn an open base language model into a model of your language."""

__version__ = "0.1.0"
