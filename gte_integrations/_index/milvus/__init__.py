"""Where a Milvus collection lives: on a server, or in Milvus Lite in this process."""
