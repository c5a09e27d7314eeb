"""Bus on a log table in Records, on Redis streams, on NATS JetStream and on Kafka."""
