"""Networks of both stages; `z1g.networks.weights` has the slots that load or initialize them."""
