"""Serving: formats and a server for exported files."""
