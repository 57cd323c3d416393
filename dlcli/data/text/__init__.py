"""Text: sources of documents, tokenizers that learn from them, and sequences of tokens for networks."""
