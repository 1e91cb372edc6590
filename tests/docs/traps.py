"""The traps that tests marked ``trap`` pin: what goes wrong, who met it; written out as ``docs/traps.md``."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_OWNERS = {
    "AgentGym": "WooooDyy",
    "Flash-RL": "yaof20",
    "Math-Verify": "huggingface",
    "OpenRLHF": "OpenRLHF",
    "ReMA-public": "ziyuwan",
    "SkyRL": "NovaSky-AI",
    "miles": "radixark",
    "prime-rl": "PrimeIntellect-ai",
    "prm800k": "openai",
    "trl": "huggingface",
    "trlx": "CarperAI",
    "verl": "verl-project",
}
_REPOSITORIES = {
    "RAGEN": "https://github.com/RAGEN-AI/RAGEN",
    "agent_prm": "https://github.com/sanjibanc/agent_prm",
    "openr": "https://github.com/openreasoner/openr",
    "PURE": "https://arxiv.org/abs/2504.15275",
}


@dataclass(frozen=True)
class Trap:
    """One trap.

    Attributes:
        what: the mistake.
        goes_wrong: what the mistake does to a run.
        met: who documented it, as ``repository#number`` or a name of ``_REPOSITORIES``; empty if it
            was met while this project was built.
    """

    what: str
    goes_wrong: str
    met: tuple[str, ...] = ()


TRAPS: dict[str, dict[str, Trap]] = {
    "Tokens": {
        "re-encoding": Trap(
            "Sampled tokens are decoded and encoded again before training.",
            "The tokenizer may split the same text otherwise. The policy is then trained on tokens that it "
            "never sampled, with log-probabilities of other tokens.",
            ("trl#5224", "SkyRL#123", "verl#6719"),
        ),
        "turn separator": Trap(
            "The chat template's separator between two turns is dropped when an observation is appended.",
            "Every turn shifts the conversation further from what the model was trained on.",
            ("verl#6921", "verl#6501"),
        ),
        "sliding window in a cache with holes": Trap(
            "A model with a sliding window decodes in a cache in which early ends have left masked columns.",
            "The window counts columns, not tokens. Probabilities of tiny models are off by 1 to 3 nats.",
        ),
        "unusual tokens": Trap(
            "An action is recognised by its tokens instead of by its text.",
            "A policy may spell a word with other tokens than the tokenizer would. The action is misread.",
        ),
        "text as control": Trap(
            "An observation that contains the text of a control token is encoded with that token.",
            "The environment, or a page that it shows, ends its own message and writes a turn of the agent.",
        ),
        "thought as action": Trap(
            "An action is read from the whole message of a model that thinks first.",
            "The environment is given the thought. No action is valid, and every reward is 0.",
        ),
        "forced tokens trained": Trap(
            "A thought is cut at a limit, and the tokens that end the thought are stored as sampled.",
            "The model learns to end every thought at that length. Their log-probabilities are those of a "
            "text that it would not have written, so ratios and confidences are wrong.",
        ),
        "date in the prompt": Trap(
            "A chat template writes today's date.",
            "The prompts of a run that goes on tomorrow have other tokens than today's.",
        ),
        "tokenizer class": Trap(
            "A tokenizer is told apart by its vocabulary alone.",
            "`AutoTokenizer` picks a class by the model beside it, and the class splits text in its own way. "
            "Training and rollout then see different tokens of the same text.",
        ),
        "foreign vocabulary": Trap(
            "A PRM of another vocabulary is handed the policy's token ids.",
            "The ids name other words there. Scores are noise, and a critic that starts from such weights "
            "reads noise.",
        ),
        "closing message": Trap(
            "A value is read after the environment's last message.",
            "The last message tells whether the task was solved. The PRM learns to read it, looks perfect on "
            "finished episodes and is useless before the end.",
        ),
        "value position": Trap(
            "A value or a reward is laid one token beside the end of its action.",
            "The model learns at a token that has not seen the action, or has seen what followed it.",
        ),
    },
    "Credit": {
        "observations in GAE": Trap(
            "Tokens of observations count as time steps of GAE.",
            "For λ < 1 a long observation makes the credit of earlier actions decay.",
            ("verl#2337",),
        ),
        "masked reward": Trap(
            "The terminal reward is put on a token that was not sampled.",
            "The reward is masked out, or reaches the actions weakened.",
            ("miles#1827",),
        ),
        "wrong mask": Trap(
            "Advantages of steps are laid on a mask that is shifted or marks other tokens.",
            "Actions are credited for their neighbours.",
            ("SkyRL#1507",),
        ),
        "zero reward": Trap(
            "A reward of 0 is treated as no reward.",
            "The turn vanishes from the batch, and failures teach nothing.",
            ("RAGEN", "OpenRLHF#1219"),
        ),
        "intermediate reward": Trap(
            "A reward before the end of the episode is dropped.",
            "The environment pays for something that the method, defined for a final outcome, never sees. "
            "Such a batch is refused here.",
        ),
        "discount from the start": Trap(
            "The discount is counted from the start of the episode.",
            "Late steps get less credit for the same deed.",
            ("agent_prm",),
        ),
        "truncation": Trap(
            "A truncated episode is bootstrapped as if it had ended, or the other way round.",
            "The return of the last steps is wrong by the value of the state that would have followed.",
            ("trl#1536", "OpenRLHF#1327"),
        ),
        "whitening per micro-batch": Trap(
            "Advantages are whitened in each micro-batch on its own.",
            "In a micro-batch without successes the PRM's small differences become as large as outcomes.",
            ("PURE",),
        ),
        "refreshed potential": Trap(
            "A critic learns the shaped return, and the potential changes: the PRM is trained again.",
            "The critic is wrong at once, and the value loss jumps.",
            (),
        ),
        "cold critic": Trap(
            "PPO starts with an untrained critic.",
            "The first updates push the policy along the critic's errors.",
            ("trlx#203",),
        ),
        "Adam after warm-up": Trap(
            "Adam counts the steps in which only the critic was trained.",
            "Its bias correction is off for the policy, whose first steps are up to twice as long as set.",
        ),
        "trainer within a run": Trap(
            "The PRM's trainer runs in the processes of RL and resets what all Accelerators share.",
            "RL goes on with the precision, the DeepSpeed and the random numbers of the PRM's trainer.",
        ),
        "unread sampler": Trap(
            "The sampler's log-probabilities replace the trainer's, and no episode is read again.",
            "A sampler with other weights or another temperature is the ratio's denominator, unnoticed.",
        ),
        "joint clipping": Trap(
            "The gradients of policy and critic are clipped by one norm.",
            "A critic that errs much shortens the steps of the policy.",
        ),
    },
    "Rewards": {
        "sum of scores": Trap(
            "A step is paid the PRM's score, and credit is the sum of scores.",
            "Long episodes are paid more than short ones, and training collapses.",
            ("PURE", "prm800k#8"),
        ),
        "farmed reward": Trap(
            "A dense reward is paid in every turn.",
            "The policy collects it by waiting or going round in circles.",
            ("ReMA-public#2", "prime-rl#3282"),
        ),
        "hung environment": Trap(
            "Environments run in the threads of a standard executor.",
            "A step that never answers keeps the program alive at its end.",
            (),
        ),
        "alarm of unlucky tasks": Trap(
            "Success and a sign of reward hacking are compared as if their noise were independent.",
            "An unlucky draw of tasks lowers success and raises the sign together, and healthy runs ring.",
            (),
        ),
        "broken telescope": Trap(
            "Progress rewards are clipped or centred one by one.",
            "Their sum no longer cancels between the first and the last state, so that detours pay.",
            ("prime-rl#3282",),
        ),
        "k3 in the loss": Trap(
            "The k3 estimate of the KL divergence is used as a loss.",
            "Its gradient is not that of the KL divergence.",
            ("trl#4967", "trl#4638"),
        ),
        "sampler mismatch": Trap(
            "The sampler's log-probabilities are taken for the trainer's.",
            "Two programs compute different numbers for one token, and PPO's ratio is not 1 where it should "
            "be.",
            ("verl#2953", "trl#3867"),
        ),
        "sentinel": Trap(
            "Masked tokens hold a placeholder instead of a log-probability.",
            "The placeholder enters a ratio or a sum.",
            ("Flash-RL#19",),
        ),
    },
    "Labels and losses": {
        "cold start of labels": Trap(
            "TD-GAE labels are made from the values of an untrained PRM.",
            "With values of 0 every step of a success is asked to raise the promise by the full outcome.",
        ),
        "missing target": Trap(
            "A label without a progress target becomes a progress target of 0.",
            "The PRM is taught that no action changes anything.",
        ),
        "labels under autocast": Trap(
            "Labels are computed under autocast.",
            "Returns are rounded to bfloat16 before the PRM sees them.",
        ),
        "mean of means": Trap(
            "The loss is averaged within a trajectory and then over trajectories.",
            "A step of a short trajectory weighs more, and the loss depends on how a batch is split.",
        ),
        "missing score": Trap(
            "A score that failed, or was never made, silently becomes 0.",
            "A candidate loses a search, or a step is punished, for an error of the program.",
            ("openr",),
        ),
        "split by row": Trap(
            "Training and test data are split by row instead of by task.",
            "Trajectories of one task are on both sides, and the measurement is of memory.",
            ("agent_prm",),
        ),
        "other limits": Trap(
            "Monte-Carlo rollouts run with a shorter context than the trajectories they label.",
            "States near the limit become failures.",
        ),
        "AUC of one class": Trap(
            "An AUC over successes alone, or failures alone, is reported as 0 or ½.",
            "A number stands where nothing was measured.",
        ),
    },
    "Models and precision": {
        "rounded values": Trap(
            "The scalar head computes in bfloat16.",
            "Values between ½ and 1 are multiples of 1/256, which is as much as a step changes them.",
        ),
        "rounded logits": Trap(
            "Logits are divided by the temperature in bfloat16 by the trainer and in float32 by the sampler.",
            "The trainer computes another distribution than was sampled from.",
        ),
        "dropout of the head": Trap(
            "A stock token-classification head is used as it comes.",
            "It drops 10 % of its inputs in training.",
        ),
        "copy of the head": Trap(
            "LoRA trains a copy of the head, and only the original is set to zero.",
            "The trained copy starts from random weights.",
        ),
        "silent DataParallel": Trap(
            "One process that sees several GPUs spreads its batches over all of them.",
            "The batch is a multiple of what was set. One GPU is used here, and the log says so.",
        ),
    },
    "Servers": {
        "a server's own generation config": Trap(
            "A request leaves sampling parameters to the server.",
            "vLLM takes top_p, top_k and repetition_penalty from the model's generation config. Tokens come "
            "from another distribution than the trainer computes.",
        ),
        "raw log-probabilities of a server": Trap(
            "A server gives log-probabilities of the logits, not of the sampling distribution.",
            "At temperatures other than 1 every stored log-probability is another distribution's.",
        ),
        "a prefix cache that outlives the weights": Trap(
            "A server reloads its weights and keeps its prefix cache.",
            "Tokens are sampled from keys and values of the old weights, without a word.",
        ),
        "a tied output layer that stays old after a reload": Trap(
            "A server on a CPU reloads its weights, and the packed copy of a tied output layer stays.",
            "Hidden states of the new weights meet the output layer of the old ones.",
        ),
    },
    "Environments, runs and files": {
        "success at any time": Trap(
            "A mission counts as fulfilled if it was fulfilled at any time.",
            "RL learns never to finish and to visit one object after another.",
        ),
        "invented observation": Trap(
            "A message is read to its end, although the model went on with an observation that it invented.",
            "The action that is carried out rests on the invention, or a good action is refused because "
            "another one follows. The success rate shows neither.",
        ),
        "silent gap": Trap(
            "An episode whose environment failed is dropped.",
            "Success rates are computed over the episodes that happened to work.",
        ),
        "half a file": Trap(
            "A file is written in place.",
            "A killed run leaves half a shard or half a checkpoint, and the next run reads it.",
        ),
        "last policy lost": Trap(
            "The best policy is chosen among measured ones, and the last one is measured only if the "
            "iteration is a multiple of `eval_every`.",
            "What was learned after the last measurement is thrown away.",
        ),
        "an answer too early": Trap(
            "A number in a line of reasoning is taken for the final answer.",
            "The episode ends there, right by luck or wrong, and the policy learns not to reason.",
        ),
        "time limit by signal": Trap(
            "The time limit of a grader is a signal.",
            "The limit fails outside of the main thread, and does not end a computation in C: a thread gets "
            "no verdict, and one answer like 9^9^9^9 stops the run.",
            ("Math-Verify#11", "Math-Verify#55", "trl#5281"),
        ),
    },
}


def names() -> dict[str, Trap]:
    """Every trap by its name."""
    return {name: trap for group in TRAPS.values() for name, trap in group.items()}


def marked_tests() -> Iterator[tuple[str, Path, str]]:
    """The name of a trap, the file and the name of a test that pins it."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                for mark in node.decorator_list:
                    if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.trap":
                        yield ast.literal_eval(mark.args[0]), path.relative_to(ROOT), node.name


def page() -> str:
    """The text of ``docs/traps.md``."""
    tests = list(marked_tests())
    lines = [
        "# Known traps, and the tests that pin them",
        "",
        "<!-- Written by `python -m tests.docs.write` from tests/docs/traps.py. Do not edit. -->",
        "",
        "Much of what goes wrong in training agents goes wrong silently: the run ends, and its numbers are "
        f"wrong. {len(names())} such traps are listed here. {len(tests)} tests fail if this project steps "
        "into one of them. The last column of each table says who documented the trap in public; "
        '"here" means that it was met while this project was built.',
        "",
        "A new trap is an entry in [`tests/docs/traps.py`](../tests/docs/traps.py) and a test marked "
        '`@pytest.mark.trap("its name")`.',
    ]
    for group, traps in TRAPS.items():
        lines += [
            "",
            f"## {group}",
            "",
            "| trap | what goes wrong | tests | met by |",
            "| --- | --- | --- | --- |",
        ]
        for name, trap in traps.items():
            links = "<br>".join(
                f"[`{test.removeprefix('test_').removeprefix('trap_')}`](../{path.as_posix()})"
                for key, path, test in tests
                if key == name
            )
            met = ", ".join(map(_link, trap.met)) or "here"
            lines.append(f"| {trap.what} | {trap.goes_wrong} | {links} | {met} |")
    return "\n".join(lines) + "\n"


def _link(source: str) -> str:
    if source in _REPOSITORIES:
        return f"[{source}]({_REPOSITORIES[source]})"
    repository, number = re.fullmatch(r"([\w-]+)#(\d+)", source).groups()  # type: ignore[union-attr]
    return f"[{source}](https://github.com/{_OWNERS[repository]}/{repository}/issues/{number})"
