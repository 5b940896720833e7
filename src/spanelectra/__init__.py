"""SpanElectra: span-level pre-training of text encoders that needs little compute."""

__version__ = "0.1.0"
