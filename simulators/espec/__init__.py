"""An Espec climate chamber: its air, its controller, and the line or network that it hangs on."""
