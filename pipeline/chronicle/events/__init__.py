"""Events: what applications say happened. The contract, its limits and the catalogue of types; needs nothing but msgspec."""
