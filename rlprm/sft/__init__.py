"""Supervised fine-tuning: the trainer; what is learned is put together in ``rlprm.stages.sft``."""
