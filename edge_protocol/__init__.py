"""The contract both sides speak: messages, codec, topics, blobs, transports."""

__version__ = "0.1.0"
