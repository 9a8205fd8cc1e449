"""PiSSA: train the largest singular components.

Meng, Wang, Zhang: PiSSA: principal singular values and singular vectors adaptation of large language models,
NeurIPS 2024, arXiv 2404.02948.
"""

from dataclasses import dataclass

from zoo.methods._components import ComponentsMethod


@dataclass(frozen=True)
class Principal(ComponentsMethod):
    """Low-rank updates that start as the largest singular components, which learn fastest."""

    def chosen(self, rank: int) -> slice:
        """Return the first components."""
        return slice(0, min(self.rank, rank))
