"""The stream: topics, batches, publisher and the embedded broker."""
