"""WebShop: buy what an instruction asks for, on the pages of a shop as text.

The shop is generated, or holds WebShop's own products (``data="path"``). Pages, actions and rewards are
upstream's (princeton-nlp/WebShop) and AgentGym's. A purchase ends an episode, with both values of
``end``.
"""

from rlprm.envs.webshop.environment import WebShop
from rlprm.envs.webshop.expert import ROUND_LIMIT, demonstrate
from rlprm.envs.webshop.shop.product import Option, Product, Review
from rlprm.envs.webshop.tasks import make, tasks
from rlprm.envs.webshop.transcript import read_transcript
from rlprm.envs.webshop.wording import FIXED_PHRASES, opening, tools

__all__ = [
    "FIXED_PHRASES",
    "ROUND_LIMIT",
    "Option",
    "Product",
    "Review",
    "WebShop",
    "demonstrate",
    "make",
    "opening",
    "read_transcript",
    "tasks",
    "tools",
]
