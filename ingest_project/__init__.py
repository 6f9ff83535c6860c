"""Composition: settings, processes, queues and addresses; knows everybody, only by name."""
