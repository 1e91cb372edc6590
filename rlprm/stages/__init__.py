"""The stages of the command line; each reads what the one before wrote. Only ``rlprm.cli`` imports them."""
