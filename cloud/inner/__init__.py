"""How one task adapts: the network as a function, unrolled steps, meta attention, the device's semantics."""
