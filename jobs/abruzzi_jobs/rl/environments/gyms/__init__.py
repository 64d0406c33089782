"""The gyms that ship with Abruzzi (paper 3.2.1)."""
