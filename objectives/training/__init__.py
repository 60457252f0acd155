"""What trains: fine-tuning a base model, and distillation of a quantised one."""
