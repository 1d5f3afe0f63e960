"""Evidence: studies in a form to share, joined over data sets, and the advice that rests on them."""
