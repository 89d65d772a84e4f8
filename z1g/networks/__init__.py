"""The networks themselves; their options are the slots of `z1g.networks.weights`."""
