"""Problems of a data set, and how rare its structures are."""
