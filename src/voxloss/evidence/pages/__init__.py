"""The pages of the evidence, in Markdown."""
