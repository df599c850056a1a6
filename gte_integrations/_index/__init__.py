"""What the hybrid indexes share: documents in, hits out, whatever the engine."""
