"""What units do with the libraries of models, which a driver that only names units does not load."""
