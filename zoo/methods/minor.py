"""MiLoRA: train the smallest singular components.

Wang, Xiao, Li, Li, Chen, Chen: MiLoRA: harnessing minor singular components for parameter-efficient LLM finetuning,
NAACL 2025, arXiv 2406.09044.
"""

from dataclasses import dataclass

from zoo.methods._components import ComponentsMethod


@dataclass(frozen=True)
class Minor(ComponentsMethod):
    """Low-rank updates that start as the smallest singular components, on which a trained network depends least."""

    def chosen(self, rank: int) -> slice:
        """Return the last components."""
        return slice(max(0, rank - self.rank), rank)
