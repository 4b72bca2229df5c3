"""Language models: Hugging Face models with PEFT adapters, instruction data, generation."""
