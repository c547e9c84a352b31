"""Fine-tuning of Hugging Face checkpoints on sparse depth labels: SFT as in DepthLM, and GRPO to compare."""
