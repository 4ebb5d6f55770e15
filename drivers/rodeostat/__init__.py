"""IO Rodeo's Rodeostat, an open potentiostat of the education class."""
