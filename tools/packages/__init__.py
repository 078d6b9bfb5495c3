"""What tools/check_packages.py is made of, and the programs it runs in fresh environments (trials)."""
