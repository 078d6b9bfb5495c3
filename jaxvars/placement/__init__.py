"""Placement: on which device of JAX a variable lives, and models whose variables live on several."""

from jaxvars.placement.homes import resolve

__all__ = ["resolve"]
