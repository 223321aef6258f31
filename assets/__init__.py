"""Data files of aii; ``aii.resources.asset(name)`` finds them."""
