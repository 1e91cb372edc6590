"""Which messages of a language model declare an answer, and which do not: the rule ``answers: flexible``."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from rlprm.envs import math
from rlprm.envs.math import flexible
from tests.toys.math_answers import PUBLISHED, played, task_of
from tests.toys.trajectories import of_words

DECLARED = {
    # ####
    "#### 18": "18",
    "#### -7": "-7",
    "#### 1,234.50": "1234.5",
    "#### $70,000": "70000",
    "#### -$5": "-5",
    "#### $-5": "-5",
    "#### \\$70,000.00": "70000",
    "#### $\\$70,000$": "70000",
    "#### 70000 dollars": "70000",
    "#### 1/2": "0.5",
    "#### $\\frac{1}{2}$": "0.5",
    "#### \\frac{2}{3}": "2/3",
    "#### **18**": "18",
    "#### x = 18": "18",
    "#### 50%": "50",
    "#### 2 million": "2000000",
    "####18": "18",
    "##### 18": "18",
    "#### 2^{10}": "2^{10}",
    "#### 2x": "2",  # as published
    "#### 3 + 4": "3",  # as published
    "so it is\n#### $18\nand more": "18",
    "#### $3\n#### $4": "3",
    "#### 3 or #### 4": "3",  # as published
    "#### 18 (16 - 3 + 5)": "18",  # as published
    "#### Step: none\n#### $18": "18",
    # boxes
    "\\boxed{18}": "18",
    "$\\boxed{18}$": "18",
    "So we get \\boxed{18} eggs.": "18",
    "$$\n\\boxed{18}\n$$": "18",
    "\\boxed {18}": "18",
    "\\boxed{1} and then \\boxed{18}": "18",
    "\\boxed{\\boxed{18}}": "18",
    "\\boxed{\\frac{1}{2}}": "0.5",
    "\\boxed{\\dfrac{1}{2}}": "0.5",
    "\\boxed{\\frac12}": "0.5",
    "\\boxed{-\\frac{3}{4}}": "-0.75",
    "\\boxed{\\frac{-3}{4}}": "-0.75",
    "\\boxed{\\frac{1,000}{4}}": "250",
    "\\boxed{3\\frac{1}{2}}": "3.5",
    "\\boxed{3 1/2}": "3.5",
    "\\boxed{\\text{18 dollars}}": "18",
    "\\boxed{18 \\text{ dollars}}": "18",
    "\\boxed{18\\text{ cm}^2}": "18",
    "\\boxed{18\\,\\mathrm{m/s}}": "18",
    "\\boxed{18^\\circ}": "18",
    "\\boxed{18cm}": "18",
    "\\boxed{\\$70{,}000}": "70000",
    "\\boxed{70,\\!000}": "70000",
    "\\boxed{70\\,000}": "70000",
    "\\boxed{50\\%}": "50",
    "\\boxed{x = 18}": "18",
    "\\boxed{12 + 6 = 18}": "18",
    "\\boxed{x \\approx 18}": "18",
    "\\boxed{\\left(18\\right)}": "(18)",
    "\\boxed{\\{18\\}}": "\\{18\\}",
    "\\boxed{18} \\boxed{": "18",
    "\\boxed{18 \\text{ red and blue pens}}": "18",
    "\\boxed{3!}": "3!",
    # labels
    "Answer: 18": "18",
    "**Answer: 18**": "18",
    "**Answer:** 18": "18",
    "**Answer**: 18": "18",
    "__Answer:__ 18.": "18",
    "**Final Answer:** $18": "18",
    "Final answer: 18 dollars": "18",
    "### Answer: 18": "18",
    "The final answer: $\\frac{1}{2}$": "0.5",
    "- My answer: 18": "18",
    "> ANSWER: 18!": "18",
    "16 + 2 = 18\nAnswer: 18": "18",
    "Answer: 12 + 6 = 18": "18",
    "Answer: x = 18": "18",
    "Answer:\n18": "18",
    "## Final Answer\n\n18": "18",
    "**Final Answer**\n$18": "18",
    "Answer: 17\nNo.\nAnswer: 18": "18",
    # sentences
    "The answer is 18": "18",
    "The answer is 18.": "18",
    "the answer is: 18!": "18",
    "The answer is $18.": "18",
    "The answer is $18.50.": "18.5",
    "The answer is $18$.": "18",
    "The answer is **18**.": "18",
    "**The answer is 18.**": "18",
    "The answer is **18.**": "18",
    "The answer is 18 dollars.": "18",
    "The answer is 18 miles per hour.": "18",
    "The answer is 40 boxes of cookies.": "40",
    "The answer is $\\frac{1}{2}$.": "0.5",
    "The answer is \\(\\frac{1}{2}\\).": "0.5",
    "The answer is \\frac{1}{2}.": "0.5",
    "The answer is $2^{10}$.": "2^{10}",
    "The answer is 3 1/2 hours.": "3.5",
    "The answer is 20%.": "20",
    "The answer is 20 percent.": "20",
    "The answer is 2 million dollars.": "2000000",
    "The answer is x = 18.": "18",
    "So the answer is 18.": "18",
    "Therefore, the final answer is 18.": "18",
    "The correct answer to this question is 18.": "18",
    "Our answer is 18.": "18",
    "16 - 7 = 9, so the answer is 9": "9",
    "16 - 7 = 9, and so the answer is 9.": "9",
    "16 - 7 = 9. The answer is 9.": "9",
    "We are done! The answer is 9.": "9",
    "The answer is 17.\nThe answer is 18.": "18",
    "The answer is:\n\n18": "18",
    "Final Answer: The final answer is $18$. I hope it is correct.": "18",
    # the first form of the list
    "\\boxed{17}\n#### $18": "18",
    "The answer is 17.\n\\boxed{18}": "18",
}  # fmt: skip


@pytest.mark.parametrize("message", DECLARED)
def test_declared_answers_are_read(message: str) -> None:
    found = flexible.extract(message)
    assert found is not None
    assert flexible.canonical(found) == DECLARED[message]
    made = replace(of_words([message], success=True), task=task_of("5"))
    assert math.answer(made) == DECLARED[message]


@pytest.mark.parametrize("message", [m for m, read in DECLARED.items() if re.fullmatch("-?[0-9.]+", read)])
def test_the_number_that_is_read_is_right_and_another_is_wrong(message: str) -> None:
    assert played(message, DECLARED[message]) == (True, 1.0)
    if not PUBLISHED.search(message):
        assert played(message, "987654") == (True, 0.0)


REASONING = [
    "",
    "18",
    "**18**",
    "16 + 2 = 18",
    "She makes $18 a day.",
    "so the answer is not 18 yet",
    "The answer is not 18.",
    "The answer is 18?",
    "Is the answer 18?",
    "The answer is 12 + 3",
    "The answer is 12 + 3.",
    "The answer is 3 times 6.",
    "The answer is half of 18.",
    "The answer is 18% of 50.",
    "The answer is 18% of the total",
    "The answer is 18 or 20.",
    "The answer is between 10 and 20.",
    "The answer is 18 so far",
    "The answer is 18 for now.",
    "The answer is 18 more than before.",
    "The answer is 18 if x is 2.",
    "The answer is 18, but let us check",
    "The answer is 18. Wait, let me check.",
    "The answer is 18...",
    "The answer is 18 - 3",
    "The answer is 2x",
    "The answer is 2x.",
    "The answer is 2 x",
    "The answer is $x$.",
    "The answer is found by adding 12 and 6.",
    "The answer is the sum of 12 and 6.",
    "The answer is x = 18 or x = 20.",
    "The answer is not x = 18.",
    "The answer is",
    "The answer is:",
    "If the answer is 18, then she has 20.",
    "If she has 20, the answer is 18.",
    "Check whether the answer is 18.",
    "I think the answer is 18",
    "Maybe the answer is 18.",
    "Suppose that the answer is 18.",
    "It is not true that the answer is 18.",
    "No, the answer is 18.",
    "The answer to part (a) is 18.",
    "The first answer is 18.",
    "The answer for Monday is 18.",
    "the answerer is 18",
    "Another answer is 18.",
    "Answer the question: 12 + 3",
    "Answer: 12 + 3",
    "Answer: first compute 12 + 3",
    "Answer: 3 hours and 20 minutes",
    "Answer: Let us see.",
    "Answer: 18 or 20",
    "Answer 1: 18",
    "Answer:",
    "Answer: ?",
    "Answer:\nWe add 12 and 6.",
    "Previous answer: 18",
    "The answers: 18",
    "An answer: 18",
    "What is 3 + 4? Answer: 7",
    "### Step 18",
    "### 18",
    "#### Step 1: add 12 and 6",
    "#### twelve",
    "####",
    "#### x",
    "#### Answer",
    "\\boxed{}",
    "\\boxed{ }",
    "\\boxed{?}",
    "\\boxed{answer}",
    "\\boxed{\\text{twelve}}",
    "\\boxed{18",
    "\\boxed{\\frac{1}{2}",
    "\\boxed 18",
    "\\box{18}",
    "boxed{18}",
    "Put the answer into \\boxed{}.",
]  # fmt: skip


@pytest.mark.trap("an answer too early")
@pytest.mark.parametrize("message", REASONING)
def test_trap_reasoning_ends_no_episode(message: str) -> None:
    assert flexible.extract(message) is None
    assert played(message, "18") == (False, 0.0)
    assert math.answer(replace(of_words([message], success=False), task=task_of("18"))) is None


@pytest.mark.parametrize(
    ("message", "letter"),
    [
        ("#### B", "B"),
        ("#### b) Paris", "B"),
        ("#### **B**", "B"),
        ("#### $B$", "B"),
        ("\\boxed{B}", "B"),
        ("\\boxed{b}", "B"),
        ("\\boxed{(B)}", "B"),
        ("$\\boxed{\\text{B}}$", "B"),
        ("\\boxed{\\textbf{(B)}}", "B"),
        ("\\boxed{\\text{B. Paris}}", "B"),
        ("\\boxed{A} no, \\boxed{B}", "B"),
        ("**Answer: B**", "B"),
        ("**Answer:** (B) Paris", "B"),
        ("Answer: B. Paris", "B"),
        ("Answer: B) Paris", "B"),
        ("Answer: (b)", "B"),
        ("Final answer: B", "B"),
        ("Answer:\nB", "B"),
        ("The answer is (B).", "B"),
        ("The answer is B.", "B"),
        ("The answer is **B**.", "B"),
        ("The correct answer is (B) Paris.", "B"),
        ("The correct answer is B: Paris", "B"),
        ("Paris lies on the Seine, so the answer is B", "B"),
        ("The answer is A.\nThe answer is B.", "B"),
        # near misses
        ("B", None),
        ("Paris (B)", None),
        ("#### A good answer is B", None),
        ("#### E", None),  # of four choices
        ("\\boxed{E}", None),
        ("\\boxed{2}", None),
        ("\\boxed{A, B}", None),
        ("\\boxed{A or B}", None),
        ("\\boxed{Both}", None),
        ("\\boxed{}", None),
        ("Answer: A good question", None),
        ("Answer: a", None),
        ("Answer: A, B", None),
        ("Answer: A) or B)", None),
        ("Answer: E", None),
        ("The answer is a", None),
        ("The answer is A good one", None),
        ("The answer is B. But let me check C.", None),
        ("The answer is (B), but let me check C.", None),
        ("The answer is (B) but let me check C.", None),
        ("The answer is (A) or (B).", None),
        ("The answer is not B.", None),
        ("The answer is B?", None),
        ("I think the answer is B", None),
        ("If the answer is B, A is wrong.", None),
        ("The answer is 2.", None),
        ("Among A, B, C and D", None),
    ],
)
def test_letters_of_choices_are_read(message: str, letter: str | None) -> None:
    assert flexible.extract(message, letters="ABCD") == letter
    expected = (letter is not None, float(letter == "B"))
    assert played(message, "B", letters="ABCD") == expected
