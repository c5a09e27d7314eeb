"""Tables as Parquet files on Blobs."""
