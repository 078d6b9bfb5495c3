"""Proposing rules: how alike names are, which belong together, and rules that say so briefly."""

from jaxvars.checkpoint.suggest.suggestion import Suggestion, suggest_rules

__all__ = ["Suggestion", "suggest_rules"]
