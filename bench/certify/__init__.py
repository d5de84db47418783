"""Certificates: the evidence that a sampler is the one its paper describes, for anyone to ask for."""
