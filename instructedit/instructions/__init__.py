"""Instructions: pools of task descriptions, and the text put in front of an input."""

from instructedit.instructions.controls import CONTROLS, WHICH, Which, instruction_for
from instructedit.instructions.pools import DEFAULT_POOLS, InstructionPool, load_pools, pool_for
from instructedit.instructions.rendering import render, seen_instruction, training_instruction, unseen_instruction

__all__ = [
    "CONTROLS",
    "DEFAULT_POOLS",
    "WHICH",
    "InstructionPool",
    "Which",
    "instruction_for",
    "load_pools",
    "pool_for",
    "render",
    "seen_instruction",
    "training_instruction",
    "unseen_instruction",
]
