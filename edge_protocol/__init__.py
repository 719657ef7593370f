"""The contract both sides speak: messages, codec, topics, blobs, transports."""
