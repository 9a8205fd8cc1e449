"""A page on which people try networks in their browser: a static folder that needs no network."""

from zoo.demo.write import Demo, Written, write_demo

__all__ = ["Demo", "Written", "write_demo"]
