"""The page: HTML, viewer and the server that shows it."""
