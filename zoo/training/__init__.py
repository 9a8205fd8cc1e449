"""Train any method on any backbone with one LightningModule."""
