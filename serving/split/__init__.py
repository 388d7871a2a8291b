"""Retrieval and ranking in other processes: frames, the client, the servers."""
