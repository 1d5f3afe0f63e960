"""What every part needs and none owns: errors, files that appear whole, this machine, texts."""
