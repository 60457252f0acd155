"""Training: fine-tuning a base model, and polishing a quantised model by distillation."""
