"""Training: fine-tuning a base model, and distilling one into a quantised model."""
