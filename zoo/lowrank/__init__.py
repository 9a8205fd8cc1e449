"""Layers whose weight is a product of factors: how they are made, sized, cut, widened and taken apart again."""
