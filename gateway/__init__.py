"""An asynchronous-job API gateway: policies in front, signed job events behind."""

__version__ = "0.1.0"
