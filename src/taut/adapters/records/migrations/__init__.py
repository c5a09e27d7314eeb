"""The migrations, one chain a dialect, written by `tools/new_migration`. `chain.txt` lists a chain's revisions in order."""
