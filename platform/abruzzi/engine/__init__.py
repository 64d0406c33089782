"""The pure decision function and its vocabulary."""
