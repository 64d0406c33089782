"""The run controller: lease, observe, decide, act."""

from abruzzi_operators.controller.controller import Controller, ControllerConfig

__all__ = ["Controller", "ControllerConfig"]
