"""A synthetic abdominal CT with a rare tumour."""
