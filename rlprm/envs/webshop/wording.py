"""The words around the pages: instructions, and the phrases that never vary."""

from __future__ import annotations

from rlprm.envs import _openings
from rlprm.envs._instructions import WEBSHOP
from rlprm.envs.webshop.shop.generated_products import ASIN_PARTS
from rlprm.types import End, Message, Tool

__all__ = ["FIXED_PHRASES", "opening", "tools"]

FIXED_PHRASES: tuple[str, ...] = (
    # start page
    "WebShop [SEP] Instruction: [SEP] ",
    " [SEP] Search",
    # all other pages
    "Instruction: [SEP] ",
    " [SEP] Back to Search [SEP] Page ",
    " [SEP] Back to Search [SEP] < Prev [SEP] ",
    " [SEP] ",
    # results
    " (Total results: ",
    ") [SEP] < Prev [SEP] Next > [SEP] ",
    ") [SEP] Next > [SEP] ",
    " [SEP] $",
    ".99 [SEP] ",
    *(part for parts in ASIN_PARTS for part in parts),
    # products
    " [SEP] Price: $",
    ".99 [SEP] Rating: ",
    " [SEP] Description [SEP] Features [SEP] Reviews [SEP] Buy Now",
    " [SEP] Description [SEP] Features [SEP] Reviews [SEP] Attributes [SEP] Buy Now",
    # instructions
    ", and price lower than ",
    ".00 dollars",
    # actions
    "search[",
    "click[",
    "click[Buy Now]",
    "click[Features]",
    "click[Description]",
    "click[Reviews]",
    "click[< Prev]",
    "click[Next >]",
    "click[Back to Search]",
    # rich pages
    "[button] ",
    " [button_]\n",
    "[clicked button] ",
    " [clicked button_]\n",
    "You have clicked ",
)
"""Parts of the text without a word of a product in them, and the parts of the generated identifiers."""


def opening(*, end: End, style: str) -> list[Message]:
    """Return the messages that precede the first observation.

    Args:
        end: Makes no difference: the purchase ends an episode.
        style: ``"none"``, ``"short"`` (answer with the bare action) or ``"agentgym"``
            (AgentGym's Thought/Action format).

    Raises:
        ConfigError: for another style.
    """
    return _openings.opening(WEBSHOP, end=end, style=style)


def tools(*, end: End) -> list[Tool]:
    """Return what a model may call; see :class:`rlprm.envs.base.EnvironmentModule`.

    Args:
        end: makes no difference, because the purchase ends an episode.
    """
    return [
        Tool(
            "search",
            "Search the shop for products. Possible on the page with the search bar only.",
            {"keywords": "The words to search for."},
            "search[{keywords}]",
        ),
        Tool(
            "click",
            "Click a button of the current page: a product, an option, a sub-page, or Buy Now.",
            {"item": "The text of the button, as the page shows it."},
            "click[{item}]",
        ),
    ]
