"""How the runs of a study are executed: workers that pull runs from its folder, and what starts them."""
