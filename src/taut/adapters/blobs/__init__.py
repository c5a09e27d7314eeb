"""Blobs on a local directory and on S3-compatible object stores."""
