"""The cards of the losses, and the page for users of other libraries."""
