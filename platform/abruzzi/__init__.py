"""Abruzzi: contracts, SDK and command line; with the `server` extra, everything that decides or remembers."""
