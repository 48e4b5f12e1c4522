"""NETSOR⊤⁺ programs: the IR, its tracer, text form and verifier."""
