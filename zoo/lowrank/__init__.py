"""Layers whose weight is a product of factors: making, sizing, cutting, widening and deploying them."""
