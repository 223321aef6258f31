"""The other engines, each in a process of its own, with our weights in its own format."""
