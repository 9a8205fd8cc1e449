"""Latency of files and networks on this machine."""
